//! The supervisor with a backend whose jobs end when the test says so.

use std::sync::Mutex;

use futures::future::{BoxFuture, FutureExt as _};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::*;

#[derive(Debug, PartialEq)]
enum Job {
    Start,
    Prepare,
    Remove,
    Inspect,
}

/// A running job.
struct Work {
    id: InstanceId,
    job: Job,
    cancel: Option<CancellationToken>,
    grace: Option<Duration>,
    end: oneshot::Sender<()>,
}

/// Connections that close when the test says so.
struct Connected {
    over: Semaphore,
    forgotten: AtomicU64,
}

impl Drain for Connected {
    fn drain<'a>(&'a self, _: &'a InstanceId, grace: Duration) -> BoxFuture<'a, ()> {
        timeout(grace, self.over.acquire()).map(drop).boxed()
    }

    fn forget(&self, _: &InstanceId) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Clone)]
struct Fake {
    work: mpsc::Sender<Work>,
    busy: Arc<Mutex<Vec<InstanceId>>>,
}

impl Fake {
    async fn run(
        &self,
        id: InstanceId,
        job: Job,
        cancel: Option<CancellationToken>,
        grace: Option<Duration>,
    ) {
        {
            let mut busy = self.busy.lock().expect("not poisoned");
            assert!(!busy.contains(&id), "two jobs of {id} at once");
            busy.push(id.clone());
        }
        let (end, ended) = oneshot::channel();
        let work = Work { id: id.clone(), job, cancel, grace, end };
        self.work.send(work).await.expect("the test listens");
        let _ = ended.await;
        self.busy.lock().expect("not poisoned").retain(|other| *other != id);
    }
}

impl Backend for Fake {
    async fn start(
        &self,
        id: InstanceId,
        _: Box<ContainerSpec>,
        _: Option<u64>,
        cancel: CancellationToken,
    ) {
        self.run(id, Job::Start, Some(cancel), None).await;
    }

    async fn prepare(
        &self,
        id: InstanceId,
        _: Box<ContainerSpec>,
        _: Option<u64>,
        cancel: CancellationToken,
    ) {
        self.run(id, Job::Prepare, Some(cancel), None).await;
    }

    async fn remove(&self, id: InstanceId, grace: Duration) {
        self.run(id, Job::Remove, None, Some(grace)).await;
    }

    async fn inspect(&self, id: InstanceId) {
        self.run(id, Job::Inspect, None, None).await;
    }
}

struct Harness {
    actions: mpsc::Sender<RuntimeAction>,
    reporter: Reporter,
    events: mpsc::Receiver<RuntimeEvent>,
    work: mpsc::Receiver<Work>,
    connected: Arc<Connected>,
}

impl Harness {
    fn new() -> Self {
        let (reporter, receiver) = channel();
        let (actions, waiting) = mpsc::channel(MAX_PENDING_ACTIONS);
        let (sender, events) = mpsc::channel(1);
        let (begin, work) = mpsc::channel(2 * MAX_ACTIVE_INSTANCES);
        let fake = Fake { work: begin, busy: Arc::default() };
        let connected =
            Arc::new(Connected { over: Semaphore::new(0), forgotten: AtomicU64::new(0) });
        let drain = Arc::clone(&connected);
        tokio::spawn(run(fake, drain, receiver, waiting, sender));
        Self { actions, reporter, events, work, connected }
    }

    async fn act(&self, action: RuntimeAction) {
        self.actions.send(action).await.expect("it runs");
    }

    async fn work(&mut self, job: Job) -> Work {
        let work = timeout(Duration::from_secs(20), self.work.recv())
            .await
            .expect("in time")
            .expect("it runs");
        assert_eq!(work.job, job);
        work
    }

    async fn event(&mut self) -> RuntimeEvent {
        timeout(Duration::from_secs(20), self.events.recv())
            .await
            .expect("in time")
            .expect("it runs")
    }

    /// Waits until everything sent before was handled.
    async fn flush(&mut self) {
        self.reporter.unavailable("flushed".to_owned(), false).await;
        assert_eq!(self.event().await, RuntimeEvent::Unavailable("flushed".to_owned()));
    }
}

fn id(replica: u32) -> InstanceId {
    InstanceId {
        slot: format!("shop/web.{replica}").parse().expect("a slot"),
        digest: "0".to_owned(),
    }
}

fn start(replica: u32) -> RuntimeAction {
    RuntimeAction::Start { id: id(replica), spec: Box::default(), epoch: None, trace: None }
}

fn remove(replica: u32) -> RuntimeAction {
    RuntimeAction::Remove { id: id(replica), drain_ms: 0, grace_ms: 0 }
}

fn seen(replica: u32, phase: Phase) -> Observed {
    Observed { id: id(replica), phase, address: String::new() }
}

const RUNNING: Phase = Phase::Running { health: None, started: 1, said: String::new() };

fn failed() -> Phase {
    Phase::Failed { reason: "no image".to_owned() }
}

fn exited() -> Phase {
    Phase::Exited { code: 0, output: String::new(), out_of_memory: false }
}

fn pulling() -> Phase {
    Phase::Pulling { progress: String::new() }
}

#[tokio::test]
async fn an_instance_has_one_job_at_a_time_and_the_newest_action_wins() {
    let mut harness = Harness::new();
    harness.act(start(1)).await;
    let first = harness.work(Job::Start).await;
    harness.act(start(1)).await; // the running job answers it
    harness.act(remove(1)).await; // cancels a pull
    first.cancel.expect("a start can be broken off").cancelled().await;
    harness.act(start(1)).await;
    harness.act(remove(1)).await;
    harness.act(start(2)).await; // runs in parallel
    let other = harness.work(Job::Start).await;
    assert_eq!(other.id, id(2));
    first.end.send(()).expect("it waits");
    let second = harness.work(Job::Remove).await;
    second.end.send(()).expect("it waits");
    other.end.send(()).expect("it waits");
    harness.flush().await;
    assert!(harness.work.try_recv().is_err());
}

#[tokio::test]
async fn events_during_a_job_cause_one_inspection_after_it() {
    let mut harness = Harness::new();
    harness.act(start(1)).await;
    let job = harness.work(Job::Start).await;
    for _ in 0..3 {
        harness.reporter.inspect(id(1)).await;
    }
    harness.flush().await;
    job.end.send(()).expect("it waits");
    harness.work(Job::Inspect).await.end.send(()).expect("it waits");
    harness.flush().await;
    assert!(harness.work.try_recv().is_err());
}

#[tokio::test]
async fn observations_made_after_a_list_began_are_newer_than_the_list() {
    let mut harness = Harness::new();
    let since = harness.reporter.clock();
    harness.reporter.answer(seen(1, RUNNING)).await; // Started meanwhile.
    harness.event().await;
    harness.reporter.answer(seen(2, Phase::Gone)).await; // Removed meanwhile.
    harness.event().await;
    harness.reporter.listed(since, vec![seen(2, RUNNING), seen(3, RUNNING)]).await;
    assert_eq!(
        harness.event().await,
        RuntimeEvent::Listed(vec![seen(1, RUNNING), seen(3, RUNNING)])
    );
    // A later list is taken as it is.
    harness.reporter.listed(harness.reporter.clock(), vec![seen(2, RUNNING)]).await;
    assert_eq!(harness.event().await, RuntimeEvent::Listed(vec![seen(2, RUNNING)]));
}

#[tokio::test]
async fn an_incomplete_container_is_not_listed() {
    let mut harness = Harness::new();
    harness.act(start(1)).await;
    let job = harness.work(Job::Start).await;
    harness.reporter.listed(harness.reporter.clock(), vec![seen(1, failed())]).await;
    assert_eq!(harness.event().await, RuntimeEvent::Listed(vec![]));
    harness.reporter.answer(seen(1, pulling())).await;
    harness.event().await;
    harness.reporter.listed(harness.reporter.clock(), vec![]).await;
    assert_eq!(harness.event().await, RuntimeEvent::Listed(vec![seen(1, pulling())]));
    drop(job);
}

#[tokio::test]
async fn an_exited_instance_is_not_listed_while_it_is_being_started() {
    let mut harness = Harness::new();
    harness.reporter.answer(seen(1, failed())).await;
    harness.event().await;
    harness.act(start(1)).await;
    harness.reporter.listed(harness.reporter.clock(), vec![seen(1, exited())]).await;
    assert_eq!(harness.event().await, RuntimeEvent::Listed(vec![]));
    drop(harness.work(Job::Start).await);
}

#[tokio::test]
async fn the_reason_of_a_failed_start_is_kept_until_the_next_action() {
    let mut harness = Harness::new();
    harness.reporter.answer(seen(1, failed())).await;
    harness.event().await;
    harness.reporter.observed(seen(1, exited())).await;
    harness.reporter.observed(seen(1, Phase::Gone)).await;
    harness.reporter.listed(harness.reporter.clock(), vec![]).await;
    assert_eq!(harness.event().await, RuntimeEvent::Listed(vec![seen(1, failed())]));
    harness.reporter.listed(harness.reporter.clock(), vec![seen(1, exited())]).await;
    assert_eq!(harness.event().await, RuntimeEvent::Listed(vec![seen(1, failed())]));
    harness.reporter.answer(seen(1, Phase::Gone)).await;
    assert_eq!(harness.event().await, RuntimeEvent::Changed(seen(1, Phase::Gone)));
    harness.reporter.listed(harness.reporter.clock(), vec![]).await;
    assert_eq!(harness.event().await, RuntimeEvent::Listed(vec![]));
}

#[tokio::test]
async fn an_unchanged_observation_is_not_reported_but_an_answer_is() {
    let mut harness = Harness::new();
    harness.reporter.observed(seen(1, Phase::Gone)).await;
    harness.reporter.observed(seen(1, RUNNING)).await;
    assert_eq!(harness.event().await, RuntimeEvent::Changed(seen(1, RUNNING)));
    harness.reporter.observed(seen(1, RUNNING)).await;
    harness.reporter.answer(seen(1, RUNNING)).await;
    assert_eq!(harness.event().await, RuntimeEvent::Changed(seen(1, RUNNING)));
    harness.flush().await;
}

#[tokio::test]
async fn the_number_of_active_instances_is_limited() {
    let mut harness = Harness::new();
    let limit = u32::try_from(MAX_ACTIVE_INSTANCES).expect("fits");
    for replica in 1..=limit + 5 {
        harness.act(start(replica)).await;
    }
    let mut jobs = Vec::new();
    for _ in 0..MAX_ACTIVE_INSTANCES {
        jobs.push(harness.work(Job::Start).await);
    }
    harness.flush().await;
    assert!(harness.work.try_recv().is_err());
    for job in jobs {
        job.end.send(()).expect("it waits");
    }
    // There is room again once they have ended.
    while harness.work.try_recv().is_err() {
        harness.act(start(limit + 1)).await;
        harness.flush().await;
    }
}

#[tokio::test]
async fn an_instance_stops_when_its_connections_have_closed() {
    let mut harness = Harness::new();
    let grace = Duration::from_secs(60);
    harness.act(RuntimeAction::Remove { id: id(1), drain_ms: 60_000, grace_ms: 60_000 }).await;
    harness.act(start(2)).await; // starts after the removal, without waiting for it
    harness.work(Job::Start).await.end.send(()).expect("it waits");
    harness.flush().await;
    assert!(harness.work.try_recv().is_err());
    harness.connected.over.add_permits(1);
    let removal = harness.work(Job::Remove).await;
    assert!(removal.grace.is_some_and(|left| left < grace && left > grace / 2));
    assert_eq!(harness.connected.forgotten.load(Ordering::SeqCst), 1); // by the start
    removal.end.send(()).expect("it waits");
    while harness.connected.forgotten.load(Ordering::SeqCst) < 2 {
        harness.flush().await;
    }
}

#[tokio::test]
async fn connections_that_stay_open_leave_a_second_to_stop_in() {
    let mut harness = Harness::new();
    harness.act(RuntimeAction::Remove { id: id(1), drain_ms: 1100, grace_ms: 1100 }).await;
    assert_eq!(harness.work(Job::Remove).await.grace, Some(MIN_GRACE));
    harness.act(remove(2)).await; // without grace
    assert_eq!(harness.work(Job::Remove).await.grace, Some(Duration::ZERO));
}

#[tokio::test]
async fn an_instance_is_started_after_its_preparation_and_a_removal_cancels_it() {
    let mut harness = Harness::new();
    let prepare = |replica| RuntimeAction::Prepare {
        id: id(replica),
        spec: Box::default(),
        epoch: None,
        trace: None,
    };
    harness.act(prepare(1)).await;
    harness.act(prepare(1)).await;
    let work = harness.work(Job::Prepare).await;
    harness.act(start(1)).await;
    harness.reporter.listed(harness.reporter.clock(), vec![seen(1, Phase::Prepared)]).await;
    assert_eq!(harness.event().await, RuntimeEvent::Listed(Vec::new()), "a start follows");
    harness.reporter.answer(seen(1, Phase::Prepared)).await;
    assert_eq!(harness.event().await, RuntimeEvent::Changed(seen(1, Phase::Prepared)));
    work.end.send(()).expect("it waits");
    harness.work(Job::Start).await;

    harness.act(prepare(2)).await;
    let work = harness.work(Job::Prepare).await;
    harness.act(remove(2)).await;
    harness.flush().await;
    assert!(work.cancel.expect("it can be cancelled").is_cancelled());
}
