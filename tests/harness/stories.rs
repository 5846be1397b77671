//! Compose files that tests deploy.

/// A service whose instances sleep. A project for each, so that files do not touch each other.
pub fn sleepers(project: &str, service: &str, replicas: u32) -> String {
    with(project, service, replicas, "")
}

/// As [`sleepers`], with more lines in the service, indented by four.
pub fn with(project: &str, service: &str, replicas: u32, more: &str) -> String {
    format!(
        "name: {project}\nservices:\n  {service}:\n    image: vc-test:1\n    command: [sleep, '900']\n    \
         stop_grace_period: 2s\n    scale: {replicas}\n{more}"
    )
}

/// A service whose instances write a line every half second.
pub fn talkers(project: &str, service: &str, replicas: u32) -> String {
    let script = "i=0; while true; do i=$$((i+1)); echo line $$i of $$VC_REPLICA; sleep 0.5; done";
    format!(
        "name: {project}\nservices:\n  {service}:\n    image: vc-test:1\n    \
         command: [sh, -c, '{script}']\n    stop_grace_period: 1s\n    scale: {replicas}\n"
    )
}

/// A service that answers HTTP requests on port 80 with the name of its image, and says after a moment that it is
/// healthy. With more lines in the service, indented by four.
pub fn web(project: &str, service: &str, replicas: u32, more: &str) -> String {
    format!(
        "name: {project}\nservices:\n  {service}:\n    image: vc-test:1\n    command: [httpd, -f, -h, /www]\n    \
         healthcheck: {{test: [CMD, wget, -q, -O, /dev/null, 'http://127.0.0.1/'], interval: 1s, retries: 3}}\n    \
         stop_grace_period: 2s\n    scale: {replicas}\n{more}"
    )
}
