#![no_main]
vc_libfuzzer::target!("webrtc");
