//! The messages between a node and its watchdog: lines of JSON, of which either side may be of another version. Fields that a
//! reader does not know are ignored, those that are missing are empty; a request that cannot be understood is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The longest message in bytes.
pub const MAX_MESSAGE: usize = 4 << 20;

/// The deadlines of instances, in milliseconds of [`boottime`](crate::boottime). The watchdog does not interpret the names.
pub type Deadlines = BTreeMap<String, u64>;

/// What to kill.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// All processes in the control groups of the container with this id, of Docker or podman.
    Container(String),
    /// The process group of this process.
    Process {
        /// The process id, which is that of its group.
        pid: i32,
        /// Its start time, in clock ticks since the boot (`proc_pid_stat(5)`).
        start: u64,
    },
}

/// A request of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// Its number, which the answer repeats.
    pub number: u64,
    /// All deadlines from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadlines: Option<Deadlines>,
    /// Targets of instances, which replace those of the same instances.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<String, Target>,
    /// Targets whose deadline has passed already, from another watchdog.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expired: Vec<(String, Target)>,
    /// Instances that were removed, so that nothing can start them again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// Ends the watchdog at once: another one holds its state.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub end: bool,
}

/// A message of the watchdog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Its first message on a connection.
    Hello(Hello),
    /// It holds what a request says.
    Done {
        /// The number of the request.
        number: u64,
        /// Those instances of the request's targets whose deadline had passed before.
        #[serde(default)]
        expired: Vec<String>,
    },
    /// It cannot do what a request says, and has ignored all of it.
    Refused {
        /// The number of the request, if it could be read.
        number: u64,
        /// Why, for people.
        reason: String,
    },
    /// It has killed an instance whose deadline had passed, and nothing of it is left.
    Killed(Killed),
}

/// What a watchdog is, and what it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// The version of its program.
    pub version: String,
    /// Its process id.
    pub pid: i32,
    /// The deadlines.
    pub deadlines: Deadlines,
    /// The targets of instances.
    pub targets: BTreeMap<String, Target>,
    /// The targets whose deadline has passed.
    pub expired: Vec<(String, Target)>,
}

/// The end of an instance that the watchdog has killed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Killed {
    /// The instance.
    pub instance: String,
    /// How many of its processes were sent SIGKILL.
    pub processes: u64,
    /// Its deadline.
    pub deadline: u64,
    /// When the first of its processes was sent SIGKILL.
    pub first: u64,
    /// When nothing of it was left.
    pub last: u64,
}

/// Parses a request.
///
/// # Errors
/// The number of the request, or 0 if it has none, and why it is refused.
pub fn parse_request(line: &[u8]) -> Result<Request, (u64, String)> {
    #[derive(Deserialize)]
    struct Numbered {
        number: u64,
    }
    serde_json::from_slice(line).map_err(|error| {
        let number = serde_json::from_slice(line).map_or(0, |it: Numbered| it.number);
        (number, format!("this version of the watchdog does not understand it: {error}"))
    })
}

/// Parses a message of the watchdog; `None`: one of a newer version.
///
/// # Errors
/// It is not JSON.
pub fn parse_reply(line: &[u8]) -> Result<Option<Reply>, serde_json::Error> {
    serde_json::from_slice::<serde::de::IgnoredAny>(line)?;
    Ok(serde_json::from_slice(line).ok())
}

/// Writes a message as a line.
pub fn line(message: &impl Serialize) -> Vec<u8> {
    // Maps with text keys, numbers and text: nothing that JSON cannot hold.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 0.1 writes: later versions read it.
    const REQUEST: &str = r#"{"number":7,"deadlines":{"shop/db.1@ab":1200},"targets":{"shop/db.1@ab":{"container":"4f5e"},"shop/db.2@ab":{"process":{"pid":7,"start":9}}},"expired":[["shop/db.3@ab",{"container":"aa"}]],"removed":["shop/db.4@ab"]}"#;

    #[test]
    fn requests_have_the_form_that_other_versions_read() {
        let target = |id: &str| Target::Container(id.to_owned());
        let request = Request {
            number: 7,
            deadlines: Some([("shop/db.1@ab".to_owned(), 1200)].into()),
            targets: [
                ("shop/db.1@ab".to_owned(), target("4f5e")),
                ("shop/db.2@ab".to_owned(), Target::Process { pid: 7, start: 9 }),
            ]
            .into(),
            expired: vec![("shop/db.3@ab".to_owned(), target("aa"))],
            removed: vec!["shop/db.4@ab".to_owned()],
            end: false,
        };
        assert_eq!(line(&request), format!("{REQUEST}\n").into_bytes());
        assert_eq!(parse_request(REQUEST.as_bytes()), Ok(request));
    }

    #[test]
    fn unknown_fields_are_ignored_and_unknown_targets_refused() {
        let newer = br#"{"number":8,"deadlines":{},"colour":"red"}"#;
        let expected =
            Request { number: 8, deadlines: Some(Deadlines::new()), ..Request::default() };
        assert_eq!(parse_request(newer), Ok(expected));
        let newer = br#"{"number":9,"targets":{"shop/db.1@ab":{"vm":"1"}}}"#;
        assert_eq!(parse_request(newer).expect_err("refused").0, 9);
        assert_eq!(parse_request(b"{").expect_err("refused").0, 0);
    }

    #[test]
    fn replies_of_a_newer_version_are_skipped() {
        let reply = |text: &str| parse_reply(text.as_bytes()).expect("JSON");
        assert_eq!(reply(r#"{"weather":{"sun":1}}"#), None);
        let done = Reply::Done { number: 3, expired: Vec::new() };
        assert_eq!(reply(r#"{"done":{"number":3,"mood":"good"}}"#), Some(done));
        assert_eq!(
            reply(r#"{"hello":{"version":"9.0"}}"#).map(|reply| line(&reply)),
            Some(
                br#"{"hello":{"version":"9.0","pid":0,"deadlines":{},"targets":{},"expired":[]}}
"#
                .to_vec()
            )
        );
        assert!(parse_reply(b"sun").is_err());
    }
}
