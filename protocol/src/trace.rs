//! The id by which the logs of all nodes name what one command has caused.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

/// Identifies a command in the logs of all nodes: 16 bytes, shown as 32 hexadecimal digits, as a
/// [trace id](https://www.w3.org/TR/trace-context/#trace-id) is. The client that makes the request draws it; it proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// Returns the id of these random bytes.
    pub fn new(random: [u8; 16]) -> Self {
        Self(random)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a [`TraceId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no trace id: expected 32 lower-case hexadecimal digits")]
pub struct ParseTraceIdError(String);

impl FromStr for TraceId {
    type Err = ParseTraceIdError;
    fn from_str(text: &str) -> Result<Self, ParseTraceIdError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|it| it.try_into().ok());
        bytes.map(Self).ok_or_else(|| ParseTraceIdError(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for TraceId {
    type Error = ParseTraceIdError;
    fn try_from(text: String) -> Result<Self, ParseTraceIdError> {
        text.parse()
    }
}

impl From<TraceId> for String {
    fn from(id: TraceId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_32_hexadecimal_digits() {
        let id = TraceId::new([0xab; 16]);
        assert_eq!(serde_json::to_string(&id).expect("JSON"), format!("\"{}\"", "ab".repeat(16)));
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "ab", "AB", "hello world"] {
            assert!(bad.parse::<TraceId>().is_err(), "{bad}");
        }
    }
}
