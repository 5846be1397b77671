//! The session of an upgrade.

use vc_client::{Session, SessionError, expect_reply};
use vc_protocol::control::{ProgramRow, Reply, Request};
use vc_protocol::{ErrorCode, NodeId};

use super::error::NoProgram;
use super::health::Observation;
use crate::app::App;
use crate::error::{Error, Result};

/// A session that is opened anew when it was lost: nodes restart, the attached one too.
pub(super) struct Link<'a> {
    app: &'a App,
    session: Option<Session>,
}

impl<'a> Link<'a> {
    pub(super) fn new(app: &'a App) -> Self {
        Self { app, session: None }
    }

    /// Closes the session.
    pub(super) async fn close(&mut self) {
        if let Some(session) = self.session.take() {
            session.close().await;
        }
    }

    /// Returns the session.
    pub(super) async fn session(&mut self) -> Result<&mut Session> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.app.connect().await?,
        };
        Ok(self.session.insert(session))
    }

    /// Sends a request that changes nothing, once more if the session was lost.
    pub(super) async fn ask(&mut self, request: &Request) -> Result<Reply> {
        let is_lost = self.session.is_some();
        match self.ask_once(request).await {
            Err(Error::Failed(_)) if is_lost && self.session.is_none() => {
                self.ask_once(request).await
            }
            other => other,
        }
    }

    async fn ask_once(&mut self, request: &Request) -> Result<Reply> {
        let reply = self.session().await?.ask(request).await;
        // A node that cannot read a request closes the stream.
        if let Err(error) = &reply
            && !matches!(error, SessionError::Refused(it) if it.code != ErrorCode::Unimplemented)
        {
            self.session = None;
        }
        Ok(reply?)
    }

    /// Returns whether the node that this is connected to knows of upgrades.
    pub(super) async fn can_upgrade(&mut self, attached: NodeId) -> Result<bool> {
        match self.ask(&Request::NodeProgram { node: attached }).await {
            Err(Error::Failed(error)) if error.code == ErrorCode::Unimplemented => Ok(false),
            // Why it says nothing is in the plan.
            Ok(_) | Err(Error::Failed(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Returns what a node runs; else why it does not say so.
    pub(super) async fn program(
        &mut self,
        node: NodeId,
    ) -> std::result::Result<ProgramRow, NoProgram> {
        match self.ask(&Request::NodeProgram { node }).await {
            Ok(Reply::Program(program)) => Ok(*program),
            Ok(_) => Err(NoProgram::Unexpected),
            Err(Error::Failed(error)) if error.code == ErrorCode::Unimplemented => {
                Err(NoProgram::TooOld)
            }
            Err(Error::Failed(error)) => Err(NoProgram::Failed(error.message)),
            Err(_) => Err(NoProgram::Interrupted),
        }
    }

    /// Looks at the cluster.
    pub(super) async fn observe(&mut self) -> Result<Observation> {
        let nodes = expect_reply!(self.ask(&Request::Nodes).await?, Nodes)?;
        let instances = Request::Instances { service: None, usage: false };
        let instances = expect_reply!(self.ask(&instances).await?, Instances)?;
        let status = expect_reply!(self.ask(&Request::Status).await?, Status)?;
        Ok(Observation { nodes, instances, status })
    }
}
