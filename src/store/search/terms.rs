//! The terms of the search index: those of a user, and those of a search.
//!
//! The index knows numbers and which users have them. A number stands for three or four characters that
//! follow each other in one of the user's texts, for what a text begins with, for a label, or for another
//! thing that lists are filtered by. The namespace and whether the user lives are part of each number: the
//! index of one tenant is apart from all others, and a search costs by the tenant's own users.
//!
//! Numbers can coincide, and a text can have all parts of a searched one without having it: what the index
//! finds is looked at once more in the user's row.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use crate::domain::email::Email;
use crate::domain::list::{Filters, Listing};
use crate::domain::namespace::Namespace;
use crate::domain::text::fold;
use crate::domain::user::{Status, User};
use crate::domain::username::Username;

/// A number by which the index finds users.
pub type Term = u64;

/// Characters of a long n-gram. Among a million users many have the same three in a row, and what they have
/// in common with others is all read by a search: fewer have four.
const NGRAM: usize = 4;

/// Of so many long n-grams in a row the index holds at least one, that with the smallest number. So a text
/// that has another in it has all the long n-grams that are held of that other, and a third of them need not
/// be held.
///
/// Source: Schleimer, Wilkerson and Aiken, "Winnowing", SIGMOD 2003.
const WINDOW: usize = 2;

/// Most parts of a searched text that the index is asked for; those of a longer one are taken at even
/// distances.
const MAX_PROBES: usize = 12;

/// As many are asked for at first: each is a list to look into, and few suffice where some are rare.
const FIRST_PROBES: usize = 3;

/// The kind of a term. Hashed into every number: never change one.
#[derive(Clone, Copy)]
#[repr(u8)]
enum TermKind {
    /// Three characters in a row.
    Ngram = 1,
    /// The first one or two characters.
    Prefix = 2,
    Label = 3,
    Status = 4,
    Verified = 5,
    /// [`NGRAM`] characters in a row, the smallest of [`WINDOW`].
    LongNgram = 6,
}

/// The numbers of one tenant's live or trashed users.
struct TermHasher([u8; 32]);

impl TermHasher {
    fn new(namespace: &Namespace, trash: bool) -> Self {
        let mut digest = Sha256::new();
        digest.update(namespace.as_str());
        // No namespace has a NUL or a slash: nothing else ends like this.
        digest.update(if trash { "/trash" } else { "/live" });
        Self(digest.finalize().into())
    }

    fn term(&self, kind: TermKind, text: &str) -> Term {
        let mut digest = Sha256::new();
        digest.update(self.0);
        digest.update([kind as u8]);
        digest.update(text);
        let digest: [u8; 32] = digest.finalize().into();
        digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    fn ngrams<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Term> + 'a {
        ngrams(text, Filters::SUBSTRING).map(|part| self.term(TermKind::Ngram, part))
    }

    /// The smallest of every [`WINDOW`] long n-grams in a row.
    fn winnowed_ngrams(&self, text: &str) -> Vec<Term> {
        let all: Vec<Term> = ngrams(text, NGRAM).map(|part| self.term(TermKind::LongNgram, part)).collect();
        let mut smallest: Vec<Term> =
            all.windows(WINDOW).filter_map(|few| few.iter().min().copied()).collect();
        smallest.dedup();
        smallest
    }

    /// Returns terms of every text that contains `text`: up to `most` of its long n-grams, or as few short
    /// ones as have all of its characters.
    fn ngrams_for(&self, text: &str, most: usize) -> Vec<Term> {
        let long = self.winnowed_ngrams(text);
        let (all, distance) = if long.is_empty() {
            (self.ngrams(text).collect(), Filters::SUBSTRING)
        } else {
            let distance = long.len().div_ceil(most - 1);
            (long, distance)
        };
        all.iter().step_by(distance).chain(all.last()).copied().collect()
    }

    /// Returns as many terms of every text that contains `text` as are worth asking for. One long n-gram leaves
    /// characters out that short ones have, and may be what many have who have no more of `text`.
    fn all_ngrams_for(&self, text: &str) -> Vec<Term> {
        let mut parts = self.ngrams_for(text, MAX_PROBES);
        if parts.len() < FIRST_PROBES {
            let short: Vec<Term> = self.ngrams(text).collect();
            parts.extend(short.first().into_iter().chain(short.last()));
        }
        parts
    }

    /// The parts of `text` that few may have. Many have the host of an address in common.
    fn rare_ngrams_for(&self, text: &str) -> Vec<Term> {
        let local = text.split_once('@').map(|(local, _)| local);
        let text = local.filter(|local| !self.winnowed_ngrams(local).is_empty()).unwrap_or(text);
        self.ngrams_for(text, FIRST_PROBES)
    }

    fn prefixes<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Term> + 'a {
        let ends = text.char_indices().map(|(at, c)| at + c.len_utf8()).take(Filters::SUBSTRING - 1);
        ends.filter_map(|end| text.get(..end)).map(|prefix| self.term(TermKind::Prefix, prefix))
    }

    fn status(&self, status: Status) -> Term {
        self.term(TermKind::Status, &(status as u8).to_string())
    }

    fn verified(&self, verified: bool) -> Term {
        self.term(TermKind::Verified, if verified { "1" } else { "0" })
    }
}

/// Every `length` characters that follow each other.
fn ngrams(text: &str, length: usize) -> impl Iterator<Item = &str> {
    let starts = text.char_indices().map(|(at, _)| at);
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8()).skip(length - 1);
    starts.zip(ends).filter_map(|(start, end)| text.get(start..end))
}

/// The texts of a user that a search looks at in another form than that in which they are stored.
#[derive(Clone, Debug)]
pub(in super::super) struct Folded {
    pub(in super::super) id: String,
    pub(in super::super) name: String,
}

impl Folded {
    pub(in super::super) fn of(user: &User) -> Self {
        Self { id: fold(user.id.as_str()), name: fold(user.name.as_str()) }
    }
}

/// The terms that the index holds of a user.
pub(in super::super) fn terms_of(namespace: &Namespace, user: &User, folded: &Folded) -> BTreeSet<Term> {
    let hasher = TermHasher::new(namespace, user.deleted.is_some());
    let mut terms = BTreeSet::from([hasher.status(user.status), hasher.verified(user.email_verified)]);
    let username = user.username.as_ref().map_or("", Username::as_str);
    let email = user.email.as_ref().map_or("", Email::as_str);
    for text in [&folded.id, username, email, &folded.name] {
        terms.extend(hasher.ngrams(text));
        terms.extend(hasher.winnowed_ngrams(text));
        terms.extend(hasher.prefixes(text));
    }
    terms.extend(user.labels.as_slice().iter().map(|label| hasher.term(TermKind::Label, label)));
    terms
}

/// Returns true if a change of a user leaves its terms as they are.
pub(in super::super) fn same_terms(before: &User, after: &User) -> bool {
    before.deleted.is_some() == after.deleted.is_some()
        && before.status == after.status
        && before.email_verified == after.email_verified
        && before.username == after.username
        && before.email == after.email
        && before.name == after.name
        && before.labels == after.labels
}

/// Returns the probes of the index, to try one after the other until few users are found: terms that few of
/// those that match `filters` may share with others, then all that they have. Nothing if the index is of no
/// help.
pub fn probes(namespace: &Namespace, trash: bool, filters: &Filters) -> Vec<Vec<Term>> {
    let hasher = TermHasher::new(namespace, trash);
    let (mut rare, mut all) = (BTreeSet::new(), BTreeSet::new());
    for text in [&filters.search, &filters.username, &filters.email] {
        let (some, parts) = (hasher.rare_ngrams_for(text), hasher.all_ngrams_for(text));
        if parts.is_empty() {
            all.extend(hasher.prefixes(text).last());
        }
        rare.extend(some);
        all.extend(parts);
    }
    let label = filters.label.as_deref().map(|label| hasher.term(TermKind::Label, label));
    rare.extend(label);
    all.extend(label);
    // Nearly all have these.
    all.extend(filters.status.map(|status| hasher.status(status)));
    all.extend(filters.email_verified.map(|verified| hasher.verified(verified)));
    if rare == all {
        rare.clear();
    }
    [rare, all].into_iter().filter(|terms| !terms.is_empty()).map(Vec::from_iter).collect()
}

/// Returns true if what a list of live users asks the index for may be what many have: no text is long enough for a long
/// n-gram.
pub(in super::super) fn may_be_common(listing: &Listing) -> bool {
    let Filters { search, username, email, status, email_verified, label, .. } = &listing.filters;
    let texts = [search, username, email];
    let conditions = label.is_some() || status.is_some() || email_verified.is_some();
    !listing.trash
        && (conditions || texts.iter().any(|text| !text.is_empty()))
        && texts.iter().all(|text| ngrams(text, NGRAM + WINDOW - 1).next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher(namespace: &str) -> TermHasher {
        TermHasher::new(&Namespace::parse(namespace).unwrap(), false)
    }

    #[test]
    fn parts_are_characters_of_any_script() {
        assert_eq!(ngrams("ädä@x", 3).collect::<Vec<_>>(), ["ädä", "dä@", "ä@x"]);
        assert_eq!(ngrams("数学者", 3).collect::<Vec<_>>(), ["数学者"]);
        assert_eq!(ngrams("ab", 3).count(), 0);
        assert_eq!(ngrams("", 3).count(), 0);
    }

    #[test]
    fn a_short_search_asks_for_parts_that_have_all_of_its_characters() {
        let hasher = hasher("default");
        let asked = |text: &str| BTreeSet::from_iter(hasher.ngrams_for(text, MAX_PROBES));
        let short = |parts: &[&str]| parts.iter().map(|part| hasher.term(TermKind::Ngram, part)).collect();
        assert_eq!(asked("ab"), short(&[]));
        assert_eq!(asked("abc"), short(&["abc"]));
        assert_eq!(asked("abcd"), short(&["abc", "bcd"]));
    }

    #[test]
    fn a_text_has_the_long_parts_of_all_that_is_in_it() {
        let (hasher, text) = (hasher("default"), "augusta.ada.king@lovelace.example");
        let held = BTreeSet::from_iter(hasher.winnowed_ngrams(text));
        assert!(held.len() < ngrams(text, NGRAM).count() * 3 / 4, "{} are held", held.len());
        for from in 0..text.len() {
            for to in from + NGRAM + WINDOW - 1..=text.len() {
                let asked = hasher.ngrams_for(&text[from..to], MAX_PROBES);
                assert!(!asked.is_empty() && asked.iter().all(|term| held.contains(term)), "{from} to {to}");
            }
        }
    }

    #[test]
    fn common_terms_are_probed_last() {
        let ask = |filters: Filters| probes(&Namespace::default(), false, &filters);
        let search = |text: &str| Filters { search: text.into(), ..Filters::default() };
        let name = ask(search("lovela"));
        assert_eq!(name.len(), 1);
        let five = ask(search("lovel"));
        assert_eq!((five.len(), five[0].len(), five[1].len()), (2, 1, 3)); // its beginning and its end as well
        assert_eq!(ask(search("ada")).len(), 1);
        let active = ask(Filters { status: Some(Status::Active), ..search("lovela") });
        assert_eq!((active.len(), &active[0]), (2, &name[0]));
        let address = ask(search("lovela@example.com"));
        assert_eq!((address.len(), &address[0]), (2, &name[0]));
        assert_ne!(ask(search("ada@example.com"))[0], ask(search("ada"))[0]); // which tells less than the host
        assert_eq!(ask(Filters { status: Some(Status::Active), ..Filters::default() }).len(), 1);
        assert_eq!(ask(Filters::default()).len(), 0);
    }

    #[test]
    fn prefixes_are_one_and_two_characters() {
        let hasher = hasher("default");
        let of = |text: &str| hasher.prefixes(text).collect::<Vec<_>>();
        let term = |text: &str| hasher.term(TermKind::Prefix, text);
        assert_eq!(of("äda"), [term("ä"), term("äd")]);
        assert_eq!(of("ä"), [term("ä")]);
        assert_eq!(of(""), [0; 0]);
    }

    #[test]
    fn tenants_and_kinds_have_numbers_of_their_own() {
        let one = hasher("one").term(TermKind::Ngram, "ada");
        assert_ne!(one, hasher("two").term(TermKind::Ngram, "ada"));
        assert_ne!(one, hasher("one").term(TermKind::Label, "ada"));
        assert_ne!(
            one,
            TermHasher::new(&Namespace::parse("one").unwrap(), true).term(TermKind::Ngram, "ada")
        );
    }

    #[test]
    fn the_numbers_never_change() {
        // They are stored: another number would be a search that finds nothing.
        let hasher = hasher("default");
        assert_eq!(hasher.term(TermKind::Ngram, "ada"), 0x6f75_00e8_06f5_4844);
        assert_eq!(hasher.winnowed_ngrams("augusta").first(), Some(&0x6b38_44b2_d1e6_6cd9));
    }

    #[test]
    fn a_long_search_asks_for_some_of_its_parts() {
        let search = (0..256).map(|n| char::from_u32(0x4E00 + n).unwrap()).collect::<String>();
        let filters = Filters { search, ..Filters::default() };
        let asked = probes(&Namespace::default(), false, &filters);
        let [some, most] = &*asked else { panic!("{} probes", asked.len()) };
        assert!((FIRST_PROBES / 2..=FIRST_PROBES).contains(&some.len()), "{}", some.len());
        assert!((MAX_PROBES / 2..=MAX_PROBES).contains(&most.len()), "{}", most.len());
    }
}
