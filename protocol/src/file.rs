//! Handing over secrets and configs: only servers have the key, so a worker that starts an instance asks one of them for
//! the content of each file that the instance mounts.
//!
//! The worker opens a stream to a server with the protocol [`FILES_PROTOCOL`] and sends a [`FileRequest`] as a JSON frame.
//! The answer is a [`FileResponse`] as a JSON frame. After [`FileResponse::Content`] one more frame has the bytes of the
//! content, at most [`MAX_FILE_BYTES`]. Each frame is preceded by its length as 4 bytes, big endian.
//!
//! [`FILES_PROTOCOL`]: crate::wire::FILES_PROTOCOL
//! [`MAX_FILE_BYTES`]: crate::spec::MAX_FILE_BYTES

use serde::{Deserialize, Serialize};

use crate::InstanceId;
use crate::spec::FileId;

/// The largest frame with a [`FileRequest`], in bytes.
pub const MAX_FILE_REQUEST: usize = 16 * 1024;

/// A request for the content of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRequest {
    /// The instance that mounts it, which the plan gives to the asking node.
    pub instance: InstanceId,
    /// Kind and name of the file.
    pub file: FileId,
    /// Identifies the content: [`FileMount::version`](crate::spec::FileMount::version).
    pub version: String,
}

/// The answer to a [`FileRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileResponse {
    /// The content follows.
    Content,
    /// The node does not get the content; why not, for people.
    Refused(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::FileKind;

    #[test]
    fn messages_have_stable_json() {
        let request = FileRequest {
            instance: "shop/web.1@d".parse().expect("an instance"),
            file: FileId { kind: FileKind::Secret, name: "db".to_owned() },
            version: "v".to_owned(),
        };
        let json =
            r#"{"instance":"shop/web.1@d","file":{"kind":"secret","name":"db"},"version":"v"}"#;
        assert_eq!(serde_json::to_string(&request).expect("plain data"), json);
        assert_eq!(serde_json::from_str::<FileRequest>(json).expect("reads"), request);
        for (response, json) in [
            (FileResponse::Content, r#""content""#),
            (FileResponse::Refused("no".to_owned()), r#"{"refused":"no"}"#),
        ] {
            assert_eq!(serde_json::to_string(&response).expect("plain data"), json);
            assert_eq!(serde_json::from_str::<FileResponse>(json).expect("reads"), response);
        }
    }
}
