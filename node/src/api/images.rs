//! Requests about images.

use vc_engine::Mutation;
use vc_protocol::ApiError;
use vc_protocol::control::{ImagePush, Reply};

use super::ControlService;
use crate::auth::User;
use crate::frames::{Duplex, FrameError, Frames};
use vc_runtime::images::{PushError, Pushed};

impl ControlService {
    /// Lists the images that members hold.
    pub(super) async fn images(&self) -> Reply {
        let view = self.cluster.latest().view;
        Reply::Images(self.images.rows(&view, self.cluster.membership().node).await)
    }

    /// Receives an image from the client, then points its reference at it.
    ///
    /// # Errors
    /// The stream is closed, or an image was refused: what the client still sends is no request.
    pub(super) async fn push_image(
        &self,
        user: &User,
        push: &ImagePush,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<Result<Reply, ApiError>, FrameError> {
        match self.images.receive_push(push, frames).await {
            Ok(Pushed { reference, id, size }) => {
                let mutation = Mutation::Image { reference, id: id.into(), size };
                Ok(self.cluster.mutate(user, mutation).await)
            }
            Err(PushError::Stream(error)) => Err(error),
            Err(error) => {
                frames.send(&Reply::Error(error.into())).await?;
                Err(FrameError::Closed)
            }
        }
    }
}
