//! The transport as browsers and others meet it: over UDP on loopback.

mod browser;
mod dial;
mod node;
mod strangers;
