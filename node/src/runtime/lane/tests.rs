//! The loop with a backend whose jobs end when the test says so.

use std::sync::Mutex;

use tokio::sync::oneshot;
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
    end: oneshot::Sender<()>,
}

#[derive(Clone)]
struct Fake {
    work: mpsc::Sender<Work>,
    busy: Arc<Mutex<Vec<InstanceId>>>,
}

impl Fake {
    async fn run(&self, id: InstanceId, job: Job, cancel: Option<CancellationToken>) {
        {
            let mut busy = self.busy.lock().expect("not poisoned");
            assert!(!busy.contains(&id), "two jobs of {id} at once");
            busy.push(id.clone());
        }
        let (end, ended) = oneshot::channel();
        self.work.send(Work { id: id.clone(), job, cancel, end }).await.expect("the test listens");
        let _ = ended.await;
        self.busy.lock().expect("not poisoned").retain(|other| *other != id);
    }
}

impl Backend for Fake {
    async fn start(&self, id: InstanceId, _: Box<ContainerSpec>, cancel: CancellationToken) {
        self.run(id, Job::Start, Some(cancel)).await;
    }

    async fn remove(&self, id: InstanceId, _: Duration) {
        self.run(id, Job::Remove, None).await;
    }

    async fn look(&self, id: InstanceId) {
        self.run(id, Job::Look, None).await;
    }
}

struct Bench {
    actions: mpsc::Sender<RuntimeAction>,
    reports: Reports,
    events: mpsc::Receiver<RuntimeEvent>,
    work: mpsc::Receiver<Work>,
}

impl Bench {
    fn new() -> Self {
        let (reports, inbox) = reports();
        let (actions, waiting) = mpsc::channel(ACTIONS);
        let (tell, events) = mpsc::channel(1);
        let (begin, work) = mpsc::channel(2 * LANES);
        let fake = Fake { work: begin, busy: Arc::default() };
        tokio::spawn(run(fake, inbox, waiting, tell));
        Self { actions, reports, events, work }
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

const RUNNING: Phase = Phase::Running { health: None, started: 1 };

fn failed() -> Phase {
    Phase::Failed { reason: "no image".to_owned() }
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
    bench.reports.answer(seen(1, Phase::Pulling { progress: String::new() })).await;
    bench.event().await;
    bench.reports.listed(bench.reports.clock(), vec![]).await;
    assert_eq!(
        bench.event().await,
        RuntimeEvent::Listed(vec![seen(1, Phase::Pulling { progress: String::new() })])
    );
    drop(job);
}

#[tokio::test]
async fn an_end_is_not_listed_while_a_start_undoes_it() {
    let mut bench = Bench::new();
    bench.reports.answer(seen(1, failed())).await;
    bench.event().await;
    bench.act(start(1)).await;
    bench
        .reports
        .listed(
            bench.reports.clock(),
            vec![seen(1, Phase::Exited { code: 0, output: String::new() })],
        )
        .await;
    assert_eq!(bench.event().await, RuntimeEvent::Listed(vec![]));
    drop(bench.work(Job::Start).await);
}

#[tokio::test]
async fn why_a_start_failed_stays_known_until_the_next_action() {
    let mut bench = Bench::new();
    bench.reports.answer(seen(1, failed())).await;
    bench.event().await;
    bench.reports.saw(seen(1, Phase::Exited { code: 0, output: String::new() })).await;
    bench.reports.saw(seen(1, Phase::Gone)).await;
    bench.reports.listed(bench.reports.clock(), vec![]).await;
    assert_eq!(bench.event().await, RuntimeEvent::Listed(vec![seen(1, failed())]));
    bench
        .reports
        .listed(
            bench.reports.clock(),
            vec![seen(1, Phase::Exited { code: 0, output: String::new() })],
        )
        .await;
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
