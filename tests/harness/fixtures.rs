//! Compose files that tests deploy. Updates are monitored for 500 ms instead of the default 5 s.

/// Added to services without a `deploy` section.
const MONITOR: &str = "    deploy: {update_config: {monitor: 500ms}}\n";

/// Returns [`MONITOR`] unless these lines declare a `deploy` section.
fn monitor(more: &str) -> &'static str {
    if more.contains("deploy:") { "" } else { MONITOR }
}

/// Returns a Compose file with one service whose instances sleep.
pub fn sleeping_service(project: &str, service: &str, replicas: u32) -> String {
    with(project, service, replicas, "")
}

/// As [`sleeping_service`], with the lines `more` in the service, indented by four spaces.
pub fn with(project: &str, service: &str, replicas: u32, more: &str) -> String {
    format!(
        "name: {project}\nservices:\n  {service}:\n    image: vc-test:1\n    command: [sleep, '900']\n    \
         stop_grace_period: 2s\n    scale: {replicas}\n{more}{}",
        monitor(more)
    )
}

/// Returns a Compose file with one service whose instances log `line N of REPLICA` every 0.5 s.
pub fn logging_service(project: &str, service: &str, replicas: u32) -> String {
    let script = "i=0; while true; do i=$$((i+1)); echo line $$i of $$VC_REPLICA; sleep 0.5; done";
    format!(
        "name: {project}\nservices:\n  {service}:\n    image: vc-test:1\n    \
         command: [sh, -c, '{script}']\n    stop_grace_period: 1s\n    scale: {replicas}\n{MONITOR}"
    )
}

/// Returns a Compose file with one service that answers HTTP requests on port 80 with the name of its image and has a
/// healthcheck. `more`: further lines of the service, indented by four spaces.
pub fn web(project: &str, service: &str, replicas: u32, more: &str) -> String {
    format!(
        "name: {project}\nservices:\n  {service}:\n    image: vc-test:1\n    command: [httpd, -f, -h, /www]\n    \
         healthcheck: {{test: [CMD, wget, -q, -O, /dev/null, 'http://127.0.0.1/'], interval: 1s, retries: 3}}\n    \
         stop_grace_period: 2s\n    scale: {replicas}\n{more}{}",
        monitor(more)
    )
}
