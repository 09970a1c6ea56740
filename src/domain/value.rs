//! Macros for the methods that all checked values share.

/// The parts of a newtype over `$inner` that do not check: from our own table, as a reference, and moved out.
macro_rules! checked_value {
    ($name:ident($inner:ty), $as_ref:ident -> $ref:ty, $into:ident) => {
        impl $name {
            /// A value from our own table, which was checked before it was written.
            pub fn from_trusted(value: $inner) -> Self {
                Self(value)
            }

            /// The value itself.
            pub fn $as_ref(&self) -> &$ref {
                &self.0
            }

            /// The value itself, moved out.
            pub fn $into(self) -> $inner {
                self.0
            }
        }
    };
    ($name:ident) => {
        checked_value!($name(String), as_str -> str, into_string);
    };
}

/// The parts of a secret that we hand out once and store only as a digest: see [`super::secret`].
macro_rules! handed_out_secret {
    ($name:ident, $prefix:literal) => {
        impl $name {
            /// Makes secret scanners and people recognise a leaked one. To change it would end every one.
            const PREFIX: &str = $prefix;

            /// A new one from the system's random source.
            pub fn generate() -> Result<Self, rand::rngs::SysError> {
                secret::generate(Self::PREFIX).map(Self)
            }

            /// Returns the digest that is stored and looked up.
            pub fn digest(&self) -> SecretDigest {
                SecretDigest::of(&self.0)
            }

            /// The secret, for the one reply that hands it out.
            pub fn expose(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

/// An enum whose values have names for storage and callers, and what finds them by these.
macro_rules! named_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            /// Every one, in order.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$variant),*];

            /// The name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// The one of that name, if there is one.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|one| one.name() == name)
            }
        }
    };
}

pub(super) use checked_value;
pub(super) use handed_out_secret;
pub(super) use named_enum;
