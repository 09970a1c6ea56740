//! Which part of a list a caller asks for.

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Most rows to return, 0 to [`Page::MAX_LIMIT`].
    pub limit: u64,
    /// Rows to pass over; 0 with a token.
    pub offset: u64,
    /// The `next_page_token` of the page before; empty for the first page.
    pub token: String,
}

/// Why a number is not a limit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 0 to {}", Page::MAX_LIMIT)]
pub struct LimitInvalid;

/// Why a number is not an offset.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 0 or more")]
pub struct OffsetInvalid;

impl Page {
    /// Rows a caller gets that names no limit.
    pub const DEFAULT_LIMIT: i64 = 25;
    /// Most rows of one reply.
    pub const MAX_LIMIT: u64 = 1_000;
    /// Most bytes of the users of one reply: common clients refuse messages of more than 4 MiB.
    pub const MAX_BYTES: usize = 3 * 1024 * 1024;

    /// A number of rows.
    pub fn limit(raw: i64) -> Result<u64, LimitInvalid> {
        u64::try_from(raw).ok().filter(|limit| *limit <= Self::MAX_LIMIT).ok_or(LimitInvalid)
    }

    /// A number of rows to pass over.
    pub fn offset(raw: i64) -> Result<u64, OffsetInvalid> {
        u64::try_from(raw).map_err(|_| OffsetInvalid)
    }
}
