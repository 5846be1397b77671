//! Commands in containers, each test with a Docker engine of its own. Needs what `runtime_docker` needs.

#![allow(clippy::expect_used, reason = "a test states what must not fail")]

#[allow(dead_code, reason = "shared with runtime_docker, which uses all of it")]
#[path = "../runtime_docker/engine.rs"]
mod engine;
#[allow(dead_code, reason = "shared with runtime_docker, which uses all of it")]
#[path = "../runtime_docker/host.rs"]
mod host;

use std::sync::Arc;

use futures::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use vc_engine::runtime::{Phase, RuntimeAction, RuntimeEvent};
use vc_protocol::control::ExecRequest;
use vc_protocol::file::FileRequest;
use vc_protocol::spec::ContainerSpec;
use vc_protocol::{ClusterId, InstanceId, Keypair, NodeId};
use vc_runtime::docker::{Config, Exec, NetworkPool, OpenFileError, VolumePlace};
use vc_runtime::images::Images;
use vc_runtime::{
    Config as RuntimeConfig, Identity, LogStream, NoDrain, Runtime, RuntimeError, Watchdog,
};

use engine::Engine;
use host::{IMAGE, TIMEOUT};

/// A runtime with one running instance.
struct Host {
    runtime: Runtime,
    events: mpsc::Receiver<RuntimeEvent>,
    instance: InstanceId,
    _engine: Engine,
}

impl Host {
    async fn up() -> Self {
        let engine = Engine::new();
        let (to, events) = mpsc::channel(64);
        let key = |byte| Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes").public();
        let identity = Identity {
            cluster: ClusterId::of(&key(1)).expect("ed25519"),
            node: NodeId::of(&key(2)).expect("ed25519"),
        };
        let config = RuntimeConfig::Docker(Config {
            host: Some(engine.host()),
            open: Arc::new(|request: FileRequest| {
                Box::pin(std::future::ready(Err(OpenFileError::NotFound(request.file))))
            }),
            memory: None,
            data_dir: engine.dir.path().join("node"),
            images: Images::open(engine.dir.path(), Some(&engine.host())).expect("a store"),
            pool: NetworkPool::default(),
            dns: Arc::new(Vec::new),
            find_volume: Arc::new(|_| VolumePlace::default()),
        });
        let runtime = Runtime::start(config, identity, Arc::new(NoDrain), Watchdog::none(), to);
        let script = "mkfifo /end; read x </end; exit 3";
        let spec = ContainerSpec {
            image: IMAGE.to_owned(),
            command: Some(["sh", "-c", script].map(str::to_owned).into()),
            ..ContainerSpec::default()
        };
        let instance =
            InstanceId { slot: "shop/web.1".parse().expect("a slot"), digest: spec.digest() };
        runtime.perform(RuntimeAction::Start {
            id: instance.clone(),
            spec: Box::new(spec.clone()),
            epoch: None,
            trace: None,
        });
        let mut host = Self { runtime, events, instance, _engine: engine };
        host.until(|phase| matches!(phase, Phase::Running { .. })).await;
        host
    }

    async fn until(&mut self, wanted: impl Fn(&Phase) -> bool) {
        let instance = self.instance.clone();
        self.until_of(&instance, wanted).await;
    }

    async fn until_of(&mut self, instance: &InstanceId, wanted: impl Fn(&Phase) -> bool) {
        loop {
            let event = timeout(TIMEOUT, self.events.recv()).await.expect("in time");
            if let Some(RuntimeEvent::Changed(seen)) = event
                && seen.id == *instance
                && wanted(&seen.phase)
            {
                return;
            }
        }
    }

    /// Starts an instance that waits for its client, and attaches to it.
    async fn attach(&self, script: &str, tty: bool) -> (InstanceId, Exec) {
        let mut spec = ContainerSpec {
            image: IMAGE.to_owned(),
            command: Some(["sh", "-c", script].map(str::to_owned).into()),
            attach: true,
            ..ContainerSpec::default()
        };
        (spec.settings.tty, spec.settings.stdin_open) = (tty, true);
        let slot = "shop/run.1".parse().expect("a slot");
        let instance = InstanceId { slot, digest: spec.digest() };
        let (id, spec) = (instance.clone(), Box::new(spec));
        self.runtime.perform(RuntimeAction::Start { id, spec, epoch: None, trace: None });
        // As `vc run` does: asks again until the container is there.
        let attached = async {
            loop {
                match self.runtime.exec(&instance, &attaching(tty)).await {
                    Err(RuntimeError::NotWaiting(_)) => tokio::task::yield_now().await,
                    attached => return attached.expect("it starts"),
                }
            }
        };
        let attached = timeout(TIMEOUT, attached).await.expect("in time");
        (instance, attached)
    }

    async fn exec(&self, request: &ExecRequest) -> Exec {
        self.runtime.exec(&self.instance, request).await.expect("it runs")
    }

    async fn done(&self, request: &ExecRequest) -> Done {
        output_of(self.exec(request).await).await
    }
}

/// A command's output and exit code.
#[derive(Debug, PartialEq)]
struct Done {
    stdout: String,
    stderr: String,
    code: i64,
}

async fn output_of(exec: Exec) -> Done {
    let Exec { input, mut output, process } = exec;
    let all = async {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some((stream, bytes)) = output.next().await.expect("output") {
            match stream {
                LogStream::Stdout => stdout.extend(bytes),
                LogStream::Stderr => stderr.extend(bytes),
            }
        }
        drop(input);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = process.exit_code().await.expect("a code");
        Done { stdout: text(stdout), stderr: text(stderr), code }
    };
    timeout(TIMEOUT, all).await.expect("in time")
}

fn request(command: &[&str]) -> ExecRequest {
    ExecRequest {
        service: "shop/web".to_owned(),
        replica: None,
        command: command.iter().map(|&word| word.to_owned()).collect(),
        tty: false,
        stdin: false,
        environment: Vec::new(),
        user: None,
        working_dir: None,
        size: None,
        attach: false,
    }
}

fn shell(script: &str) -> ExecRequest {
    request(&["sh", "-c", script])
}

fn on_terminal(script: &str) -> ExecRequest {
    ExecRequest { tty: true, stdin: true, size: Some((100, 40)), ..shell(script) }
}

fn attaching(tty: bool) -> ExecRequest {
    ExecRequest { tty, stdin: true, size: Some((100, 40)), attach: true, ..request(&[]) }
}

#[tokio::test]
async fn a_container_that_waits_for_its_client_starts_when_one_attaches() {
    let host = Host::up().await;
    let script = "echo first; echo second >&2; read line; echo got $line; exit 7";
    let (instance, mut exec) = host.attach(script, false).await;
    let another = host.runtime.exec(&instance, &attaching(false)).await;
    assert!(matches!(another.err(), Some(RuntimeError::NotWaiting(_))));
    exec.input.write_all(b"a word").await.expect("it reads");
    exec.input.shutdown().await.expect("it reads to the end");
    let said = Done { stdout: "first\ngot a word\n".into(), stderr: "second\n".into(), code: 7 };
    assert_eq!(output_of(exec).await, said);

    let (_, exec) = host.attach("exec /no/such/program", false).await;
    assert_eq!(output_of(exec).await.code, 127);
}

#[tokio::test]
async fn a_container_has_the_terminal_of_its_client_and_is_stopped_without_it() {
    let mut host = Host::up().await;
    let script = "printf '# '; read x; busybox stty size; exec busybox sleep 1000";
    let (instance, exec) = host.attach(script, true).await;
    let Exec { mut input, mut output, process } = exec;
    let mut said = String::new();
    for expected in ["# ", "# go\r\n40 100\r\n"] {
        while said != expected {
            let bytes = timeout(TIMEOUT, output.next()).await.expect("in time").expect("output");
            said += &String::from_utf8_lossy(&bytes.expect("it runs").1);
            assert!(expected.starts_with(&said), "{said:?}");
        }
        input.write_all(b"go\n").await.expect("it reads");
        input.flush().await.expect("it reads");
    }
    drop((input, output));
    process.hang_up().await;
    let ended = |seen: &Phase| matches!(seen, Phase::Exited { .. });
    host.until_of(&instance, ended).await;
}

#[tokio::test]
async fn outputs_are_separate_and_user_directory_and_environment_are_set() {
    let host = Host::up().await;
    let mut asked = shell("echo $GREETING from $PWD; busybox id -u >&2; exit 42");
    asked.environment = vec!["GREETING=hello".to_owned()];
    asked.working_dir = Some("/bin".to_owned());
    asked.user = Some("1000".to_owned());
    let said = Done { stdout: "hello from /bin\n".into(), stderr: "1000\n".into(), code: 42 };
    assert_eq!(host.done(&asked).await, said);
    // A command may outlive the end of its outputs.
    let late = shell("exec >&- 2>&-; sleep 1; exit 5");
    assert_eq!(host.done(&late).await.code, 5);

    let absent = host.runtime.exec(&host.instance, &request(&["/no/such/program"])).await;
    let said = match absent {
        Ok(exec) => {
            let done = output_of(exec).await;
            assert!([126, 127].contains(&done.code), "{done:?}");
            done.stdout + &done.stderr
        }
        Err(error) => error.to_string(),
    };
    assert!(said.contains("/no/such/program") && said.contains("no such file"), "{said}");
}

#[tokio::test]
async fn a_hundred_megabytes_pass_unchanged_in_both_directions_at_once() {
    const SIZE: usize = 100 << 20;
    let host = Host::up().await;
    let exec = host.exec(&ExecRequest { stdin: true, ..request(&["cat"]) }).await;
    let Exec { mut input, mut output, process } = exec;
    // Every byte value, without a period that could hide a lost chunk.
    let byte = |at: usize| (at ^ (at >> 8) ^ (at >> 16)).to_le_bytes()[0];
    let write = async {
        for start in (0..SIZE).step_by(1 << 16) {
            let chunk: Vec<u8> = (start..start + (1 << 16)).map(byte).collect();
            input.write_all(&chunk).await.expect("it reads");
        }
        input.shutdown().await.expect("it reads to the end");
    };
    let read = async {
        let mut at = 0;
        while let Some((stream, bytes)) = output.next().await.expect("output") {
            assert_eq!(stream, LogStream::Stdout);
            let intact = bytes.iter().enumerate().all(|(i, &is)| is == byte(at + i));
            assert!(intact, "at {at}");
            at += bytes.len();
        }
        at
    };
    let ((), size) = timeout(TIMEOUT, async { tokio::join!(write, read) }).await.expect("in time");
    assert_eq!(size, SIZE);
    assert_eq!(process.exit_code().await.expect("a code"), 0);
}

#[tokio::test]
async fn a_terminal_has_a_size_and_passes_every_byte() {
    let host = Host::up().await;
    // Older engines set the size only after the command has started.
    let script = "until test \"$(busybox stty size 2>/dev/null)\"; do sleep 0.1; done; \
                  busybox stty size; read x; busybox stty size";
    let mut exec = host.exec(&on_terminal(script)).await;
    let (_, bytes) = timeout(TIMEOUT, exec.output.next())
        .await
        .expect("in time")
        .expect("output")
        .expect("a size");
    assert_eq!(String::from_utf8_lossy(&bytes), "40 100\r\n");
    exec.process.resize(120, 50).await;
    exec.input.write_all(b"go\n").await.expect("it reads");
    exec.input.flush().await.expect("it reads");
    assert_eq!(output_of(exec).await.stdout, "go\r\n50 120\r\n");

    // Bytes that look like Docker's header are passed on.
    let done = host.done(&on_terminal(r"printf '\001\000\000\000\377\377\377\377ok'")).await;
    assert!(done.code == 0 && done.stdout.ends_with("ok"), "{done:?}");
}

#[tokio::test]
async fn hanging_up_ends_the_processes_on_the_terminal() {
    let host = Host::up().await;
    let exec = host.exec(&on_terminal("echo up; busybox sleep 1000")).await;
    let Exec { input, mut output, process } = exec;
    let up = timeout(TIMEOUT, output.next()).await.expect("in time").expect("output");
    assert_eq!(up.expect("a line").1, b"up\r\n");
    drop((input, output));
    process.hang_up().await;
    let code = timeout(TIMEOUT, process.exit_code()).await.expect("in time").expect("a code");
    assert_eq!(code, 129, "ended by SIGHUP");
    let left =
        host.done(&shell("busybox ps | busybox grep 'sleep 1000' | busybox grep -v grep")).await;
    assert_eq!(left.stdout, "");
}

#[tokio::test]
async fn files_are_copied_into_and_out_of_a_container() {
    let host = Host::up().await;
    host.done(&shell("busybox mkdir -p /srv/old; echo old >/srv/file")).await;
    let upload = async |path: &str| host.runtime.copy_in(&host.instance, path, "site").await;
    // Into an existing directory, in place of an existing file, and as a new file.
    for (path, root) in [("/srv", "site"), ("/srv/file", "file"), ("/srv/new", "new")] {
        assert_eq!(upload(path).await.expect("it can go there").root, root, "{path}");
    }
    for nowhere in ["/srv/new/", "/"] {
        let root = upload(nowhere).await.map(|upload| upload.root);
        assert_eq!(root.ok(), (nowhere == "/").then(|| "site".to_owned()), "{nowhere}");
    }

    // One after the other: Docker serves one copy per container at a time.
    host.done(&shell("busybox head -c 9000000 /dev/urandom >/srv/big")).await;
    let archive = host.runtime.copy_out(&host.instance, "/srv").await.expect("it is there");
    let archive: Vec<_> = timeout(TIMEOUT, archive.collect()).await.expect("in time");
    let target =
        host.runtime.copy_in(&host.instance, "/copy", "srv").await.expect("it can go there");
    assert_eq!(target.root, "copy");
    let target = host.runtime.copy_in(&host.instance, "/srv/old", "srv").await.expect("it can");
    let pieces = futures::stream::iter(archive).map(|piece| piece.map_err(std::io::Error::other));
    timeout(TIMEOUT, target.unpack(pieces)).await.expect("in time").expect("unpacked");
    let same = shell("busybox cmp /srv/big /srv/old/srv/big && cat /srv/old/srv/file");
    assert_eq!(host.done(&same).await.stdout, "old\n");

    let absent = host.runtime.copy_out(&host.instance, "/nowhere").await;
    let why = absent.err().expect("it is not there").to_string();
    assert_eq!(why, "there is no /nowhere in shop/web.1");
    // An archive that fails is an error.
    let target = upload("/srv").await.expect("it can go there");
    let broken = futures::stream::iter([Err(std::io::Error::other("gone"))]);
    assert!(timeout(TIMEOUT, target.unpack(broken)).await.expect("in time").is_err());
}

#[tokio::test]
async fn a_stopped_instance_is_distinguished_from_an_absent_one() {
    let mut host = Host::up().await;
    host.done(&shell("echo >/end")).await;
    host.until(|phase| matches!(phase, Phase::Exited { .. })).await;
    let stopped = host.runtime.exec(&host.instance, &shell("true")).await;
    assert!(matches!(stopped.err(), Some(RuntimeError::NotRunning(_))));
    let other = InstanceId { digest: "0".repeat(64), ..host.instance.clone() };
    let absent = host.runtime.exec(&other, &shell("true")).await;
    assert!(matches!(absent.err(), Some(RuntimeError::NoInstance(_))));
}
