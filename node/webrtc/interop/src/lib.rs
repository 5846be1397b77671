//! Nothing but tests: see `tests/libp2p_webrtc.rs`.
