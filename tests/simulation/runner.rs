//! Runs seeds and reports what came of them; a failing run is a result, not the end of the process.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use vc_protocol::Millis;

use crate::marks::Mark;
use crate::settings::Settings;
use crate::swarm;
use crate::trace::{Recorded, is_recording, start_recording, take_recorded};

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// A hash over the whole trace: equal settings give equal hashes.
    pub hash: u64,
    /// Milliseconds of virtual time.
    pub simulated: Millis,
    /// What it reached.
    pub marks: BTreeSet<Mark>,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// Why a run failed.
#[derive(Debug)]
pub struct Failure {
    /// The violated invariant.
    pub message: String,
    /// The end of the trace.
    pub trace: Vec<String>,
}

thread_local! {
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the message of a panic in a run, and prints others as before.
fn install_hook() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !is_recording() {
                return before(info);
            }
            let payload = info.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let message = format!("{} ({place})", text.unwrap_or("panicked"));
            // The first counts: those that follow come from unwinding.
            MESSAGE.with_borrow_mut(|slot| {
                slot.get_or_insert(message);
            });
        }));
    });
}

/// Runs these settings on this thread.
pub fn run(settings: &Settings) -> Outcome {
    install_hook();
    plant(settings);
    MESSAGE.set(None);
    start_recording();
    let failed = panic::catch_unwind(AssertUnwindSafe(|| swarm::run(settings))).is_err();
    let Recorded { hash, simulated, marks, lines } = take_recorded().unwrap_or_default();
    let failure = failed.then(|| Failure {
        message: MESSAGE.take().unwrap_or_else(|| "panicked".to_owned()),
        trace: lines,
    });
    Outcome { hash, simulated, marks, failure }
}

#[cfg(debug_assertions)]
fn plant(settings: &Settings) {
    vc_protocol::planted::plant(settings.plant);
}

#[cfg(not(debug_assertions))]
fn plant(settings: &Settings) {
    assert!(settings.plant.is_none(), "a release build has no planted bugs");
}
