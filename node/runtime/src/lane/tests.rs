//! The loop with a backend whose jobs end when the test says so.

use std::sync::Mutex;

use futures::future::{BoxFuture, FutureExt as _};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::*;

#[derive(Debug, PartialEq)]
enum Job {
    Start,
    Remove,
    Look,
}

/// A job at work.
struct Work {
    id: InstanceId,
    job: Job,
    cancel: Option<CancellationToken>,
    grace: Option<Duration>,
    end: oneshot::Sender<()>,
}

/// Connections that end when the test says so.
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
    async fn start(&self, id: InstanceId, _: Box<ContainerSpec>, cancel: CancellationToken) {
        self.run(id, Job::Start, Some(cancel), None).await;
    }

    async fn remove(&self, id: InstanceId, grace: Duration) {
        self.run(id, Job::Remove, None, Some(grace)).await;
    }

    async fn look(&self, id: InstanceId) {
        self.run(id, Job::Look, None, None).await;
    }
}

struct Bench {
    actions: mpsc::Sender<RuntimeAction>,
    reports: Reports,
    events: mpsc::Receiver<RuntimeEvent>,
    work: mpsc::Receiver<Work>,
    connected: Arc<Connected>,
}

impl Bench {
    fn new() -> Self {
        let (reports, inbox) = reports();
        let (actions, waiting) = mpsc::channel(ACTIONS);
        let (tell, events) = mpsc::channel(1);
        let (begin, work) = mpsc::channel(2 * LANES);
        let fake = Fake { work: begin, busy: Arc::default() };
        let connected =
            Arc::new(Connected { over: Semaphore::new(0), forgotten: AtomicU64::new(0) });
        let drain = Arc::clone(&connected);
        tokio::spawn(run(fake, drain, inbox, waiting, tell));
        Self { actions, reports, events, work, connected }
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

    /// Waits until everything sent before is taken in.
    async fn settle(&mut self) {
        self.reports.unavailable("settled".to_owned()).await;
        assert_eq!(self.event().await, RuntimeEvent::Unavailable("settled".to_owned()));
    }
}

fn id(replica: u32) -> InstanceId {
    InstanceId {
        slot: format!("shop/web.{replica}").parse().expect("a slot"),
        digest: "0".to_owned(),
    }
}

fn start(replica: u32) -> RuntimeAction {
    RuntimeAction::Start { id: id(replica), spec: Box::default() }
}

fn remove(replica: u32) -> RuntimeAction {
    RuntimeAction::Remove { id: id(replica), grace_ms: 0 }
}

fn seen(replica: u32, phase: Phase) -> Observed {
    Observed { id: id(replica), phase, address: String::new() }
}

const RUNNING: Phase = Phase::Running { health: None, started: 1, said: String::new() };

fn failed() -> Phase {
    Phase::Failed { reason: "no image".to_owned() }
}

fn exited() -> Phase {
    Phase::Exited { code: 0, output: String::new() }
}

fn pulling() -> Phase {
    Phase::Pulling { progress: String::new() }
}

#[tokio::test]
async fn an_instance_has_one_job_at_a_time_and_the_newest_wish_wins() {
    let mut bench = Bench::new();
    bench.act(start(1)).await;
    let first = bench.work(Job::Start).await;
    bench.act(start(1)).await; // The same again: the first one answers it.
    bench.act(remove(1)).await; // Breaks off a pull.
    first.cancel.expect("a start can be broken off").cancelled().await;
    bench.act(start(1)).await;
    bench.act(remove(1)).await;
    bench.act(start(2)).await; // Another instance waits for nobody.
    let other = bench.work(Job::Start).await;
    assert_eq!(other.id, id(2));
    first.end.send(()).expect("it waits");
    let second = bench.work(Job::Remove).await;
    second.end.send(()).expect("it waits");
    other.end.send(()).expect("it waits");
    bench.settle().await;
    assert!(bench.work.try_recv().is_err());
}

#[tokio::test]
async fn hints_during_a_job_become_one_look_after_it() {
    let mut bench = Bench::new();
    bench.act(start(1)).await;
    let job = bench.work(Job::Start).await;
    for _ in 0..3 {
        bench.reports.look(id(1)).await;
    }
    bench.settle().await;
    job.end.send(()).expect("it waits");
    bench.work(Job::Look).await.end.send(()).expect("it waits");
    bench.settle().await;
    assert!(bench.work.try_recv().is_err());
}

#[tokio::test]
async fn what_was_seen_after_a_list_began_is_newer_than_the_list() {
    let mut bench = Bench::new();
    let since = bench.reports.clock();
    bench.reports.answer(seen(1, RUNNING)).await; // Started meanwhile.
    bench.event().await;
    bench.reports.answer(seen(2, Phase::Gone)).await; // Removed meanwhile.
    bench.event().await;
    bench.reports.listed(since, vec![seen(2, RUNNING), seen(3, RUNNING)]).await;
    assert_eq!(bench.event().await, RuntimeEvent::Listed(vec![seen(1, RUNNING), seen(3, RUNNING)]));
    // A list that began later is believed.
    bench.reports.listed(bench.reports.clock(), vec![seen(2, RUNNING)]).await;
    assert_eq!(bench.event().await, RuntimeEvent::Listed(vec![seen(2, RUNNING)]));
}

#[tokio::test]
async fn a_half_made_container_is_not_listed() {
    let mut bench = Bench::new();
    bench.act(start(1)).await;
    let job = bench.work(Job::Start).await;
    bench.reports.listed(bench.reports.clock(), vec![seen(1, failed())]).await;
    assert_eq!(bench.event().await, RuntimeEvent::Listed(vec![]));
    bench.reports.answer(seen(1, pulling())).await;
    bench.event().await;
    bench.reports.listed(bench.reports.clock(), vec![]).await;
    assert_eq!(bench.event().await, RuntimeEvent::Listed(vec![seen(1, pulling())]));
    drop(job);
}

#[tokio::test]
async fn an_end_is_not_listed_while_a_start_undoes_it() {
    let mut bench = Bench::new();
    bench.reports.answer(seen(1, failed())).await;
    bench.event().await;
    bench.act(start(1)).await;
    bench.reports.listed(bench.reports.clock(), vec![seen(1, exited())]).await;
    assert_eq!(bench.event().await, RuntimeEvent::Listed(vec![]));
    drop(bench.work(Job::Start).await);
}

#[tokio::test]
async fn why_a_start_failed_stays_known_until_the_next_action() {
    let mut bench = Bench::new();
    bench.reports.answer(seen(1, failed())).await;
    bench.event().await;
    bench.reports.saw(seen(1, exited())).await;
    bench.reports.saw(seen(1, Phase::Gone)).await;
    bench.reports.listed(bench.reports.clock(), vec![]).await;
    assert_eq!(bench.event().await, RuntimeEvent::Listed(vec![seen(1, failed())]));
    bench.reports.listed(bench.reports.clock(), vec![seen(1, exited())]).await;
    assert_eq!(bench.event().await, RuntimeEvent::Listed(vec![seen(1, failed())]));
    bench.reports.answer(seen(1, Phase::Gone)).await;
    assert_eq!(bench.event().await, RuntimeEvent::Changed(seen(1, Phase::Gone)));
    bench.reports.listed(bench.reports.clock(), vec![]).await;
    assert_eq!(bench.event().await, RuntimeEvent::Listed(vec![]));
}

#[tokio::test]
async fn a_look_that_shows_nothing_new_is_not_told_but_an_answer_is() {
    let mut bench = Bench::new();
    bench.reports.saw(seen(1, Phase::Gone)).await;
    bench.reports.saw(seen(1, RUNNING)).await;
    assert_eq!(bench.event().await, RuntimeEvent::Changed(seen(1, RUNNING)));
    bench.reports.saw(seen(1, RUNNING)).await;
    bench.reports.answer(seen(1, RUNNING)).await;
    assert_eq!(bench.event().await, RuntimeEvent::Changed(seen(1, RUNNING)));
    bench.settle().await;
}

#[tokio::test]
async fn no_more_instances_than_lanes_are_at_work() {
    let mut bench = Bench::new();
    let lanes = u32::try_from(LANES).expect("fits");
    for replica in 1..=lanes + 5 {
        bench.act(start(replica)).await;
    }
    let mut jobs = Vec::new();
    for _ in 0..LANES {
        jobs.push(bench.work(Job::Start).await);
    }
    bench.settle().await;
    assert!(bench.work.try_recv().is_err());
    for job in jobs {
        job.end.send(()).expect("it waits");
    }
    // There is room again, once they have ended.
    while bench.work.try_recv().is_err() {
        bench.act(start(lanes + 1)).await;
        bench.settle().await;
    }
}

#[tokio::test]
async fn an_instance_stops_when_its_connections_are_over() {
    let mut bench = Bench::new();
    let grace = Duration::from_secs(60);
    bench.act(RuntimeAction::Remove { id: id(1), grace_ms: 60_000 }).await;
    bench.act(start(2)).await; // Begun after the removal, and not kept waiting by it.
    bench.work(Job::Start).await.end.send(()).expect("it waits");
    bench.settle().await;
    assert!(bench.work.try_recv().is_err());
    bench.connected.over.add_permits(1);
    let removal = bench.work(Job::Remove).await;
    assert!(removal.grace.is_some_and(|left| left < grace && left > grace / 2));
    assert_eq!(bench.connected.forgotten.load(Ordering::SeqCst), 1); // That of the start.
    removal.end.send(()).expect("it waits");
    while bench.connected.forgotten.load(Ordering::SeqCst) < 2 {
        bench.settle().await;
    }
}

#[tokio::test]
async fn connections_that_do_not_end_leave_a_second_to_stop_in() {
    let mut bench = Bench::new();
    bench.act(RuntimeAction::Remove { id: id(1), grace_ms: 1100 }).await;
    assert_eq!(bench.work(Job::Remove).await.grace, Some(LEAST_GRACE));
    bench.act(remove(2)).await; // Without any grace.
    assert_eq!(bench.work(Job::Remove).await.grace, Some(Duration::ZERO));
}
