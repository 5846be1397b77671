//! Reasons that carry the output of instances, and what is left of them for those who may not read logs.

/// The reason of a running instance that is unhealthy.
const UNHEALTHY: &str = "its healthcheck fails";
/// How the reason of an instance that has ended begins; its code follows.
const EXITED: &str = "exited with code ";
/// What follows the code where the kernel killed a process of the instance for want of memory.
const OUT_OF_MEMORY: &str = " (out of memory: raise its limit, or give it a host with more)";
/// How the reason ends where the instance is not started again.
pub(crate) const NOT_RESTARTED: &str = "; not restarted, by its restart policy";
/// What precedes the seconds until it is started again, at the end of the reason.
const RESTARTS: &str = "; restarts in ";

/// Returns the reason of an instance that exited with a code and wrote this last.
pub(crate) fn exited(code: i64, out_of_memory: bool, output: &str) -> String {
    let memory = if out_of_memory { OUT_OF_MEMORY } else { "" };
    let separator = if output.is_empty() { "" } else { ": " };
    format!("{EXITED}{code}{memory}{separator}{output}")
}

/// Returns the reason of an unhealthy instance that said this last.
pub(crate) fn unhealthy(said: &str) -> String {
    if said.is_empty() { UNHEALTHY.to_owned() } else { format!("{UNHEALTHY}: {said}") }
}

/// Returns the reason of an instance that was started anew, as it was unhealthy for this reason.
pub(crate) fn restarted_unhealthy(reason: &str) -> String {
    format!("restarted, as it was unhealthy: {reason}")
}

/// Returns the end of a reason: the instance starts again in so many seconds.
pub(crate) fn restarts_in(seconds: u64) -> String {
    format!("{RESTARTS}{seconds} s")
}

/// Removes what an instance wrote from a text that contains its reason: from a row, a problem or an event.
pub fn remove_output(text: &mut String) {
    let exit = text.find(EXITED).map(|at| {
        let code = at + EXITED.len();
        let digits = text[code..].find(|c: char| c != '-' && !c.is_ascii_digit());
        let end = digits.map_or(text.len(), |digits| code + digits);
        if text[end..].starts_with(OUT_OF_MEMORY) { end + OUT_OF_MEMORY.len() } else { end }
    });
    let check = text.find(UNHEALTHY).map(|at| at + UNHEALTHY.len());
    let Some(start) = exit.into_iter().chain(check).min() else { return };
    let end = match text.strip_suffix(NOT_RESTARTED) {
        Some(before) => Some(before.len()),
        None => text.rfind(RESTARTS).filter(|at| is_seconds(&text[at + RESTARTS.len()..])),
    };
    let end = end.filter(|end| *end >= start);
    text.replace_range(start..end.unwrap_or(text.len()), "");
}

/// Returns whether a text is a number of seconds.
fn is_seconds(text: &str) -> bool {
    let number = text.strip_suffix(" s");
    number.is_some_and(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_instance_wrote_is_removed_and_the_rest_stays() {
        let secret = "cannot log in with hunter2; restarts in hunter2: exited with code 7: hunter2";
        let removed = |text: &str| {
            let mut text = text.to_owned();
            remove_output(&mut text);
            text
        };
        for output in [secret, ""] {
            let reasons = [
                (exited(1, false, output), "exited with code 1"),
                (exited(-9, false, output), "exited with code -9"),
                (exited(137, true, output), &exited(137, true, "")),
                (unhealthy(output), "its healthcheck fails"),
                (
                    restarted_unhealthy(&unhealthy(output)),
                    "restarted, as it was unhealthy: its healthcheck fails",
                ),
            ];
            for (reason, short) in reasons {
                for end in [NOT_RESTARTED.to_owned(), restarts_in(4), String::new()] {
                    for before in ["", "shop/web.1 is failed: ", "failed on n1: "] {
                        let text = format!("{before}{reason}{end}");
                        assert_eq!(removed(&text), format!("{before}{short}{end}"), "{text}");
                    }
                }
                let cut = format!("failed on n1: {reason}…");
                assert_eq!(removed(&cut), format!("failed on n1: {short}"));
            }
        }
        for other in
            ["", "runs on n1", "scaled from 1 to 2", "its image is on no node; restarts in 4 s"]
        {
            assert_eq!(removed(other), other);
        }
    }
}
