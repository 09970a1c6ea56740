//! Second factors: the secret of an authenticator app (RFC 6238), and recovery codes.

use std::fmt;

use rand::TryRng as _;
use rand::rngs::{SysError, SysRng};
use totp_rs::{Builder, Totp, TotpError};
use zeroize::Zeroizing;

use super::secret::SecretDigest;
use super::time::Timestamp;

/// Seconds for which an app shows a code.
const STEP_SECONDS: u64 = 30;

/// Digits of a code: 20 bits (ASVS 6.5.4).
const DIGITS: u8 = 6;

/// Steps before and after the present one whose codes are taken, too: clocks differ, and people type.
const SKEW: u16 = 1;

/// A secret that the server and an authenticator app share: 160 random bits (RFC 4226 §4), HMAC-SHA-1, which is all that many
/// apps know.
pub struct TotpSecret(Zeroizing<[u8; 20]>);

impl TotpSecret {
    /// A new secret from the system's random source.
    pub fn generate() -> Result<Self, SysError> {
        let mut bytes = Zeroizing::new([0_u8; 20]);
        SysRng.try_fill_bytes(bytes.as_mut())?;
        Ok(Self(bytes))
    }

    /// A secret from our own table; `None` if it is none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(Zeroizing::new(bytes)))
    }

    /// The bytes, to be encrypted and stored.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// The secret in base32 and as the URI that apps read, for the one reply that hands them out.
    pub fn expose(&self, issuer: &Issuer, account: &str) -> Result<TotpEnrollment, TotpError> {
        let totp = self.builder().with_issuer(Some(issuer.0.as_str())).with_account_name(account).build()?;
        Ok(TotpEnrollment {
            secret: Zeroizing::new(totp.secret().to_base32()),
            uri: Zeroizing::new(totp.to_url()?),
        })
    }

    /// The step whose code it is, of the present one and its neighbours. The caller must take no step twice.
    pub fn step_of(&self, code: &str, now: Timestamp) -> Option<i64> {
        let totp: Totp = self.builder().build().ok()?;
        let step = totp.check(code, u64::try_from(now.seconds()).ok()?)?;
        i64::try_from(step).ok()
    }

    fn builder(&self) -> Builder {
        let builder = Builder::new().with_digits(DIGITS).with_skew(SKEW).with_step_duration(STEP_SECONDS);
        builder.with_secret(self.as_bytes())
    }
}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSecret(…)")
    }
}

/// A secret as an app takes it.
pub struct TotpEnrollment {
    /// In base32.
    pub secret: Zeroizing<String>,
    /// `otpauth://totp/...`
    pub uri: Zeroizing<String>,
}

/// The name of a product, as apps show it before the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer(String);

/// Why a text is not an [`Issuer`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {} characters without a colon and control characters", Issuer::MAX_CHARS)]
pub struct IssuerInvalid;

impl Issuer {
    /// Apps cut longer ones.
    pub const MAX_CHARS: usize = 64;

    /// Reads a name. Nothing is changed to make it fit.
    pub fn parse(raw: &str) -> Result<Self, IssuerInvalid> {
        let fits = (1..=Self::MAX_CHARS).contains(&raw.chars().count());
        if fits && !raw.contains(|c: char| c == ':' || c.is_control()) {
            Ok(Self(raw.to_owned()))
        } else {
            Err(IssuerInvalid)
        }
    }
}

/// A code that signs a user in once without the app: 120 random bits, so that a plain digest of it is enough (ASVS 6.5.2).
pub struct RecoveryCode(Zeroizing<String>);

impl RecoveryCode {
    /// Codes that a user gets at a time.
    pub const COUNT: usize = 10;

    /// Crockford's base32: no character looks like another one.
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

    /// Characters, and those between two dashes.
    const LENGTH: usize = 24;
    const GROUP: usize = 6;

    /// A new code from the system's random source.
    pub fn generate() -> Result<Self, SysError> {
        let mut bytes = Zeroizing::new([0_u8; Self::LENGTH]);
        SysRng.try_fill_bytes(bytes.as_mut())?;
        // A byte has eight times as many values as a character: none comes more often.
        let character = |byte: &u8| char::from(Self::ALPHABET[usize::from(byte % 32)]);
        Ok(Self(Zeroizing::new(bytes.iter().map(character).collect())))
    }

    /// The digest of a code as typed, in any case, with or without dashes and spaces; `None` if it cannot be one.
    pub fn digest_of(raw: &str) -> Option<SecretDigest> {
        let mut code = Zeroizing::new(String::with_capacity(Self::LENGTH));
        for c in raw.chars().filter(|c| !matches!(c, '-' | ' ')) {
            let c = match c.to_ascii_lowercase() {
                'o' => '0',
                'i' | 'l' => '1',
                other => other,
            };
            if code.len() == Self::LENGTH || !Self::ALPHABET.iter().any(|known| char::from(*known) == c) {
                return None;
            }
            code.push(c);
        }
        (code.len() == Self::LENGTH).then(|| SecretDigest::of(&code))
    }

    /// The digest that is stored.
    pub fn digest(&self) -> SecretDigest {
        SecretDigest::of(&self.0)
    }

    /// The code in groups, for the one reply that hands it out.
    pub fn expose(&self) -> String {
        let groups: Vec<&str> =
            (0..Self::LENGTH).step_by(Self::GROUP).map(|at| &self.0[at..at + Self::GROUP]).collect();
        groups.join("-")
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, for SHA-1: its codes have eight digits, ours are the last six.
    #[test]
    fn codes_are_those_of_the_standard() {
        let secret = TotpSecret::from_bytes(b"12345678901234567890").unwrap();
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            let step = seconds / 30;
            for (later, want) in
                [(-60, None), (-30, Some(step)), (0, Some(step)), (30, Some(step)), (60, None)]
            {
                let now = Timestamp((step * 30 + later) * 1_000_000);
                assert_eq!(secret.step_of(code, now), want.filter(|_| now.0 >= 0), "{code} {later}");
            }
        }
        let now = Timestamp(59_000_000);
        for wrong in ["", "28708", "2870820", " 287082", "+87082", "28708２", "287083"] {
            assert_eq!(secret.step_of(wrong, now), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_app_reads_the_uri() {
        let secret = TotpSecret::from_bytes(b"12345678901234567890").unwrap();
        let issuer = Issuer::parse("The Shop & Söhne").unwrap();
        let shown = secret.expose(&issuer, "ada@example.com").unwrap();
        assert_eq!(*shown.secret, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert_eq!(
            *shown.uri,
            "otpauth://totp/The%20Shop%20%26%20S%C3%B6hne:ada%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
             &issuer=The%20Shop%20%26%20S%C3%B6hne"
        );
        assert_eq!(format!("{secret:?}"), "TotpSecret(…)");
    }

    #[test]
    fn issuers_have_no_colon() {
        let longest = "ä".repeat(64);
        for fits in ["shop", "The Shop", &longest] {
            assert!(Issuer::parse(fits).is_ok(), "{fits}");
        }
        for wrong in ["", "a:b", "a\n", &format!("{longest}ä")] {
            assert_eq!(Issuer::parse(wrong), Err(IssuerInvalid), "{wrong:?}");
        }
    }

    #[test]
    fn a_recovery_code_is_read_as_people_type_it() {
        let code = RecoveryCode::generate().unwrap();
        let text = code.expose();
        assert_eq!((text.len(), text.matches('-').count()), (27, 3));
        for typed in [&text, &text.to_uppercase(), &text.replace('-', ""), &text.replace('-', " - ")] {
            assert_eq!(RecoveryCode::digest_of(typed), Some(code.digest()), "{typed}");
        }
        let of = |text: &str| RecoveryCode::digest_of(text);
        assert_eq!(of("OIL0-11 ooo111ooo111ooo111"), of("011011000111000111000111"));
        for wrong in ["", &text[1..], &format!("{text}0"), &text.replace('-', "_"), &"u".repeat(24)] {
            assert_eq!(RecoveryCode::digest_of(wrong), None, "{wrong:?}");
        }
        assert_ne!(RecoveryCode::generate().unwrap().expose(), text);
        assert_eq!(format!("{code:?}"), "RecoveryCode(…)");
    }
}
