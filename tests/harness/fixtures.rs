//! Compose files that tests deploy. Updates are monitored for 500 ms instead of the default 5 s.

/// Added to services that declare no `deploy` section of their own.
const MONITOR: &str = "    deploy: {update_config: {monitor: 500ms}}\n";

/// Returns [`MONITOR`] unless these lines declare a `deploy` section.
fn monitor(more: &str) -> &'static str {
    if more.contains("deploy:") { "" } else { MONITOR }
}

/// A service whose instances sleep. Each has a project of its own, so that deploys do not affect each other.
pub fn sleeping_service(project: &str, service: &str, replicas: u32) -> String {
    with(project, service, replicas, "")
}

/// As [`sleeping_service`], with more lines in the service, indented by four.
pub fn with(project: &str, service: &str, replicas: u32, more: &str) -> String {
    format!(
        "name: {project}\nservices:\n  {service}:\n    image: vc-test:1\n    command: [sleep, '900']\n    \
         stop_grace_period: 2s\n    scale: {replicas}\n{more}{}",
        monitor(more)
    )
}

/// A service whose instances write a line every half second.
pub fn logging_service(project: &str, service: &str, replicas: u32) -> String {
    let script = "i=0; while true; do i=$$((i+1)); echo line $$i of $$VC_REPLICA; sleep 0.5; done";
    format!(
        "name: {project}\nservices:\n  {service}:\n    image: vc-test:1\n    \
         command: [sh, -c, '{script}']\n    stop_grace_period: 1s\n    scale: {replicas}\n{MONITOR}"
    )
}

/// A service that answers HTTP requests on port 80 with the name of its image and has a healthcheck, with more lines in
/// the service, indented by four.
pub fn web(project: &str, service: &str, replicas: u32, more: &str) -> String {
    format!(
        "name: {project}\nservices:\n  {service}:\n    image: vc-test:1\n    command: [httpd, -f, -h, /www]\n    \
         healthcheck: {{test: [CMD, wget, -q, -O, /dev/null, 'http://127.0.0.1/'], interval: 1s, retries: 3}}\n    \
         stop_grace_period: 2s\n    scale: {replicas}\n{more}{}",
        monitor(more)
    )
}
