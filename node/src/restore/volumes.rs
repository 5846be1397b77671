//! Puts the data of volumes into a store.

use std::io::{self, Read};

use libp2p::bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;
use vc_backup::{Contents, Sink};
use vc_crdt::ClusterState;
use vc_protocol::VolumeKey;
use vc_volumes::Store;

use crate::api::FIRST_EPOCH;
use crate::clock;

/// Bytes that are read at once.
const CHUNK: usize = 128 * 1024;
/// Chunks between the file and the store.
const CHUNKS: usize = 4;

/// Makes each volume's data the first snapshot of it. Used on a thread that may block, beside the runtime that it was made on.
pub(super) struct VolumeSink {
    store: Store,
    runtime: Handle,
}

impl VolumeSink {
    pub(super) fn new(store: Store) -> Self {
        Self { store, runtime: Handle::current() }
    }
}

impl Sink for VolumeSink {
    fn begin(&mut self, contents: &Contents) -> io::Result<()> {
        // Before gigabytes are read.
        let state = ClusterState::from_entries(&contents.cluster.entries);
        state.map(drop).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn volume(&mut self, key: &VolumeKey, archive: &mut dyn Read) -> io::Result<()> {
        tracing::info!(volume = %key, "restoring a volume");
        let (chunks, pending) = mpsc::channel::<io::Result<Bytes>>(CHUNKS);
        let reader = StreamReader::new(ReceiverStream::new(pending));
        let volume = self.store.volume(key);
        let importing = self
            .runtime
            .spawn(async move { volume.import(reader, FIRST_EPOCH, clock::now()).await });
        let mut buffer = vec![0; CHUNK];
        let read = loop {
            match archive.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(length) => {
                    let chunk = Bytes::copy_from_slice(&buffer[..length]);
                    if chunks.blocking_send(Ok(chunk)).is_err() {
                        break Ok(()); // The import has failed and says why.
                    }
                }
                Err(error) => {
                    let cut = io::Error::new(error.kind(), "the archive ends too early");
                    let _ = chunks.blocking_send(Err(cut));
                    break Err(error);
                }
            }
        };
        drop(chunks);
        let imported = self.runtime.block_on(importing).map_err(io::Error::other)?;
        read?;
        imported.map(drop).map_err(io::Error::other)
    }
}
