//! The bucket, and what is answered of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hyper::body::Bytes;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};

use crate::Fault;

/// The name of the only bucket.
const BUCKET: &str = "backups";
/// Objects on a page of a list: small, so that there are several.
const PAGE: usize = 2;
/// The least size of a part but the last, as at AWS, in bytes; less, so that tests are quick.
const MIN_PART: usize = 1024;

/// The header that names what an object is copied from.
const COPY_SOURCE: &str = "x-amz-copy-source";

/// What the server has.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) objects: BTreeMap<String, Bytes>,
    /// The key and the parts of each upload.
    pub(crate) uploads: BTreeMap<String, (String, BTreeMap<usize, Bytes>)>,
    begun: usize,
    pub(crate) requests: Vec<String>,
    /// The beginning of a request, how it fails, and how often.
    pub(crate) faults: Vec<(String, Fault, usize)>,
}

fn target(head: &Parts) -> (String, String, BTreeMap<String, String>) {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let path = decoded(head.uri.path().trim_start_matches('/'));
    let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
    let query = head.uri.query().unwrap_or_default().split('&').filter(|it| !it.is_empty());
    let query = query.map(|it| it.split_once('=').unwrap_or((it, "")));
    let query = query.map(|(name, value)| (name.to_owned(), decoded(value))).collect();
    (bucket.to_owned(), key.to_owned(), query)
}

/// Returns what is asked: an operation and a key.
pub(crate) fn describe(head: &Parts) -> String {
    let (_, key, query) = target(head);
    let has = |name: &str| query.contains_key(name);
    match head.method {
        Method::GET if has("list-type") => {
            format!("LIST {}", query.get("prefix").cloned().unwrap_or_default())
        }
        Method::POST if has("uploads") => format!("CREATE {key}"),
        Method::PUT if has("uploadId") => format!("PART {key}"),
        Method::POST if has("uploadId") => format!("COMPLETE {key}"),
        Method::DELETE if has("uploadId") => format!("ABORT {key}"),
        Method::PUT if head.headers.contains_key(COPY_SOURCE) => format!("COPY {key}"),
        _ => format!("{} {key}", head.method),
    }
}

/// Refuses a request as S3 does.
pub(crate) fn refusal(status: u16, code: &str) -> Response<Bytes> {
    let time = match code {
        "RequestTimeTooSkewed" => "<ServerTime>2026-11-30T10:00:00Z</ServerTime>",
        _ => "",
    };
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message>{time}</Error>"
    );
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

fn done(status: StatusCode, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
}

fn etag(content: &[u8]) -> String {
    format!("\"{:x}\"", u64::from_be_bytes(Sha256::digest(content)[..8].try_into().expect("eight")))
}

impl State {
    pub(crate) fn next_fault(&mut self, description: &str) -> Option<Fault> {
        let matches = |it: &&mut (String, Fault, usize)| it.2 > 0 && description.starts_with(&it.0);
        let (_, fault, times) = self.faults.iter_mut().find(matches)?;
        *times -= 1;
        Some(fault.clone())
    }

    pub(crate) fn answer(&mut self, head: &Parts, body: Bytes) -> Response<Bytes> {
        let (bucket, key, query) = target(head);
        if bucket != BUCKET {
            return refusal(404, "NoSuchBucket");
        }
        let value = |name: &str| query.get(name).cloned().unwrap_or_default();
        let upload = value("uploadId");
        match (describe(head).split_once(' ').unwrap_or_default().0, &upload) {
            ("LIST", _) => {
                self.list(&value("prefix"), &value("delimiter"), &value("continuation-token"))
            }
            ("CREATE", _) => {
                self.begun += 1;
                let id = format!("upload-{}", self.begun);
                self.uploads.insert(id.clone(), (key, BTreeMap::new()));
                let id = format!("<UploadId>{id}</UploadId>");
                done(
                    StatusCode::OK,
                    format!("<InitiateMultipartUploadResult>{id}</InitiateMultipartUploadResult>"),
                )
            }
            (_, id) if !id.is_empty() && !self.uploads.contains_key(id) => {
                refusal(404, "NoSuchUpload")
            }
            ("PART", id) => {
                let number = value("partNumber").parse().expect("a number");
                let tag = etag(&body);
                self.uploads.get_mut(id).expect("checked").1.insert(number, body);
                let mut response = done(StatusCode::OK, "");
                response.headers_mut().insert("etag", tag.parse().expect("a value"));
                response
            }
            ("COMPLETE", id) => self.complete(id, &body),
            ("ABORT", id) => {
                self.uploads.remove(id);
                done(StatusCode::NO_CONTENT, "")
            }
            ("COPY", _) => {
                let source = head.headers[COPY_SOURCE].to_str().expect("text");
                let source = percent_decode_str(source).decode_utf8_lossy();
                let from = source.trim_start_matches('/').strip_prefix(BUCKET);
                let from = from.and_then(|it| it.strip_prefix('/')).expect("in the bucket");
                let Some(content) = self.objects.get(from).cloned() else {
                    return refusal(404, "NoSuchKey");
                };
                let tag = etag(&content);
                self.objects.insert(key, content);
                done(
                    StatusCode::OK,
                    format!("<CopyObjectResult><ETag>{tag}</ETag></CopyObjectResult>"),
                )
            }
            ("PUT", _) => {
                let tag = etag(&body);
                self.objects.insert(key, body);
                let mut response = done(StatusCode::OK, "");
                response.headers_mut().insert("etag", tag.parse().expect("a value"));
                response
            }
            ("DELETE", _) => {
                self.objects.remove(&key);
                done(StatusCode::NO_CONTENT, "")
            }
            ("GET", _) => self.get(head, &key),
            _ => refusal(400, "InvalidRequest"),
        }
    }

    fn complete(&mut self, id: &str, body: &[u8]) -> Response<Bytes> {
        let (key, parts) = self.uploads.remove(id).expect("checked");
        let named = String::from_utf8_lossy(body).matches("<PartNumber>").count();
        let small = parts.values().rev().skip(1).any(|it| it.len() < MIN_PART);
        if named != parts.len() || small {
            return refusal(400, if small { "EntityTooSmall" } else { "InvalidPart" });
        }
        let whole: Vec<u8> = parts.values().flat_map(|it| it.iter().copied()).collect();
        let tag = etag(&whole);
        self.objects.insert(key, whole.into());
        let tag = format!("<ETag>{tag}</ETag>");
        done(
            StatusCode::OK,
            format!("<CompleteMultipartUploadResult>{tag}</CompleteMultipartUploadResult>"),
        )
    }

    fn get(&self, head: &Parts, key: &str) -> Response<Bytes> {
        let Some(content) = self.objects.get(key) else { return refusal(404, "NoSuchKey") };
        let range = head.headers.get("range").and_then(|it| it.to_str().ok());
        let range = range.and_then(|it| it.strip_prefix("bytes=")?.split_once('-'));
        let mut response = match range {
            None => done(StatusCode::OK, content.clone()),
            Some((from, to)) => {
                let from: usize = from.parse().expect("a number");
                let last = content.len().saturating_sub(1);
                let to = to.parse().unwrap_or(last).min(last);
                if from > to {
                    return refusal(416, "InvalidRange");
                }
                let mut part = done(StatusCode::PARTIAL_CONTENT, content.slice(from..=to));
                let text = format!("bytes {from}-{to}/{}", content.len());
                part.headers_mut().insert("content-range", text.parse().expect("a value"));
                part
            }
        };
        let length = response.body().len().into();
        let headers = response.headers_mut();
        headers.insert("content-length", length);
        headers.insert("etag", etag(content).parse().expect("a value"));
        headers.insert("last-modified", "Mon, 30 Nov 2026 10:00:00 GMT".parse().expect("a value"));
        response
    }

    fn list(&self, prefix: &str, delimiter: &str, after: &str) -> Response<Bytes> {
        let found = |(key, _): &(&String, &Bytes)| {
            let rest = key.strip_prefix(prefix);
            rest.is_some_and(|it| delimiter.is_empty() || !it.contains(delimiter))
                && key.as_str() > after
        };
        let all: Vec<_> = self.objects.iter().filter(found).collect();
        let mut body = String::from("<ListBucketResult>");
        for (key, content) in all.iter().take(PAGE) {
            let (size, tag) = (content.len(), etag(content).replace('"', "&quot;"));
            let _ = write!(
                body,
                "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>{tag}</ETag>\
                 <LastModified>2026-11-30T10:00:00.000Z</LastModified></Contents>"
            );
        }
        let is_truncated = all.len() > PAGE;
        let _ = write!(body, "<IsTruncated>{is_truncated}</IsTruncated>");
        if is_truncated {
            let _ =
                write!(body, "<NextContinuationToken>{}</NextContinuationToken>", all[PAGE - 1].0);
        }
        body.push_str("</ListBucketResult>");
        done(StatusCode::OK, body)
    }
}
