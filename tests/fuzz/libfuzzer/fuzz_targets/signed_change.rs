#![no_main]
vc_libfuzzer::target!("signed_change");
