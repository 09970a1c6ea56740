//! Texts of any script.

use std::cmp::Ordering;

use unicode_normalization::UnicodeNormalization as _;

/// The one form under which a text is looked up and searched: NFC and lower case. Made here and never by
/// SQL's `lower()`, so that both databases agree.
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    // A sigma that ends a word has a form of its own, which another part of the same word would not have.
    text.nfc().collect::<String>().to_lowercase().replace('ς', "σ").nfc().collect()
}

/// Returns true if `text` is a line of `sorted`, whose lines are in order. Bisects: the steps are the same
/// few whatever the text.
pub fn has_line(sorted: &str, text: &str) -> bool {
    let mut rest = sorted;
    while !rest.is_empty() {
        let mut middle = rest.len() / 2;
        while !rest.is_char_boundary(middle) {
            middle -= 1;
        }
        let start = rest[..middle].rfind('\n').map_or(0, |end| end + 1);
        let end = rest[start..].find('\n').map_or(rest.len(), |end| start + end);
        match rest[start..end].cmp(text) {
            Ordering::Equal => return true,
            Ordering::Greater => rest = rest[..start].trim_end_matches('\n'),
            Ordering::Less => rest = rest[end..].trim_start_matches('\n'),
        }
    }
    false
}

/// Why a text cannot be stored.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextInvalid {
    /// Too many characters.
    #[error("must have at most {0} characters")]
    Length(usize),
    /// Control characters hide in logs and terminals, and PostgreSQL stores no NUL.
    #[error("must not contain control characters")]
    Control,
}

/// A text of at most `most` characters and without control characters, in NFC.
pub fn plain(raw: &str, most: usize) -> Result<String, TextInvalid> {
    if raw.chars().any(char::is_control) {
        return Err(TextInvalid::Control);
    }
    let text: String = raw.nfc().collect();
    if text.chars().count() > most {
        return Err(TextInvalid::Length(most));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_unites_case_and_composition() {
        assert_eq!(fold("Ada@X"), "ada@x");
        assert_eq!(fold("E\u{301}LODIE"), fold("élodie"));
        assert_eq!(fold("İ"), fold("İ".to_lowercase().as_str()));
        assert!(fold("ΟΔΥΣΣΕΥΣ").contains(&fold("ΟΔΥΣ")));
    }

    #[test]
    fn plain_counts_characters_after_composition() {
        assert_eq!(plain("e\u{301}", 1), Ok("é".to_owned()));
        assert_eq!(plain("éé", 1), Err(TextInvalid::Length(1)));
        assert_eq!(plain("a\0b", 9), Err(TextInvalid::Control));
        assert_eq!(plain("a\u{85}b", 9), Err(TextInvalid::Control));
        assert_eq!(plain("", 0), Ok(String::new()));
    }
}
