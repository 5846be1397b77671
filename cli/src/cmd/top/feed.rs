//! What `vc top` asks the nodes.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::sleep;
use vc_client::{Session, SessionError, expect_reply};
use vc_protocol::control::{LogRequest, Reply, Request};

use super::model::News;
use super::rows::Data;
use crate::app::{App, now};
use crate::error::{Error, Result};
use crate::render;

/// Time between two answers, and between two attempts to connect.
const INTERVAL: Duration = Duration::from_secs(1);
/// Lines of a log that are read at first.
const TAIL: u32 = 500;

/// Sends what the nodes say, again and again. When a node is lost, another one is asked.
pub(super) async fn poll(app: &App, first: Session, news: Sender<News>) {
    let mut session = Some(first);
    loop {
        let asked = match session.take() {
            Some(session) => ask(session, &news).await,
            None => match app.connect().await {
                Ok(session) => ask(session, &news).await,
                Err(error) => Err(error),
            },
        };
        let Err(error) = asked;
        // When the display ends, this future is dropped.
        let _ = news.send(News::Lost(describe(&error))).await;
        sleep(INTERVAL).await;
    }
}

async fn ask(mut session: Session, news: &Sender<News>) -> Result<Infallible> {
    loop {
        let status = expect_reply!(session.ask(&Request::Status).await?, Status)?;
        let nodes = expect_reply!(session.ask(&Request::Nodes).await?, Nodes)?;
        let services = expect_reply!(session.ask(&Request::Services).await?, Services)?;
        let instances = Request::Instances { service: None, usage: true };
        let instances = expect_reply!(session.ask(&instances).await?, Instances)?;
        let data = Data { nodes, services, instances, problems: status.problems, now: now() };
        let _ = news.send(News::Data(Box::new(data))).await;
        sleep(INTERVAL).await;
    }
}

/// Sends the lines of an instance's log until it ends.
pub(super) async fn read_logs(app: &App, service: String, replica: u32, news: Sender<News>) {
    let read = app.in_session(async |session| copy_logs(session, service, replica, &news).await);
    let end = read.await.err().map(|error| describe(&error));
    let _ = news.send(News::LogEnd(end)).await;
}

async fn copy_logs(
    session: &mut Session,
    service: String,
    replica: u32,
    news: &Sender<News>,
) -> Result {
    let request = LogRequest {
        service,
        replica: Some(replica),
        follow: true,
        tail: Some(TAIL),
        since: None,
        batched: false,
    };
    session.send(&Request::Logs(request)).await?;
    loop {
        let line = match session.receive_result().await? {
            Reply::Log(row) => {
                if let Some(lost) = row.lost {
                    let _ = news.send(News::LogLine(render::lost_lines(&row, lost))).await;
                }
                row.line
            }
            Reply::Note(text) => format!("-- {text}"),
            Reply::End => return Ok(()),
            _ => return Err(SessionError::Unexpected.into()),
        };
        let _ = news.send(News::LogLine(line)).await;
    }
}

fn describe(error: &Error) -> String {
    match error {
        Error::Failed(error) => error.to_string(),
        Error::Stop(_) | Error::Usage(_) => "interrupted".to_owned(),
    }
}
