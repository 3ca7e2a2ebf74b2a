//! Values that are one word of a few.

/// Reads and shows a type whose values are one word each.
macro_rules! words {
    ($type:ty: $($word:literal => $value:expr),+) => {
        impl std::str::FromStr for $type {
            type Err = crate::Error;

            fn from_str(text: &str) -> crate::Result<Self> {
                match text {
                    $($word => Ok($value),)+
                    _ => Err(crate::Error::usage(format!(
                        "'{text}' is none of {}", [$($word),+].join(", ")
                    ))),
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $(if *self == $value { return f.write_str($word); })+
                Ok(())
            }
        }
    };
}

pub(crate) use words;
