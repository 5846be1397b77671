//! Work that several want at the same time is done once.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// How far a piece of work is.
#[derive(Debug, Clone)]
struct Stage<T> {
    progress: String,
    outcome: Option<T>,
}

/// Work under way, by what it is about. Who waits holds a receiver: when there is none, nobody does.
type UnderWay<T> = BTreeMap<String, watch::Sender<Stage<T>>>;

/// Work under way.
#[derive(Debug)]
pub(crate) struct Flights<T>(Arc<Mutex<UnderWay<T>>>);

/// Tells those who wait how far it is.
#[derive(Debug, Clone)]
pub(crate) struct Teller<T>(watch::Sender<Stage<T>>);

impl<T> Teller<T> {
    /// How far it is, for people.
    pub(crate) fn tell(&self, progress: String) {
        self.0.send_if_modified(|stage| {
            let news = stage.progress != progress;
            stage.progress = progress;
            news
        });
    }
}

/// One who waits.
#[derive(Debug)]
pub(crate) struct Waiter<T>(watch::Receiver<Stage<T>>);

/// What one who waits hears.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News<T> {
    /// It is so far.
    Progress(String),
    /// It is done.
    Outcome(T),
}

impl<T: Clone> Waiter<T> {
    /// The next news. `None`: the work broke down.
    pub(crate) async fn next(&mut self) -> Option<News<T>> {
        self.0.changed().await.ok()?;
        let stage = self.0.borrow_and_update();
        Some(match &stage.outcome {
            Some(outcome) => News::Outcome(outcome.clone()),
            None => News::Progress(stage.progress.clone()),
        })
    }
}

/// Takes the work off the list, also when it panics.
struct Landing<T> {
    all: Arc<Mutex<UnderWay<T>>>,
    key: String,
}

impl<T> Landing<T> {
    fn lock(&self) -> MutexGuard<'_, UnderWay<T>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody waits, and lets nobody join any more.
    async fn abandoned(&self, stage: &watch::Sender<Stage<T>>) {
        loop {
            stage.closed().await;
            let mut all = self.lock();
            if stage.receiver_count() == 0 {
                all.remove(&self.key);
                return;
            }
        }
    }
}

impl<T> Drop for Landing<T> {
    fn drop(&mut self) {
        self.lock().remove(&self.key);
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// Joins the work on `key`, or begins it. It is broken off when nobody waits for it any more.
    pub(crate) fn join<F>(&self, key: &str, work: impl FnOnce(Teller<T>) -> F) -> Waiter<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stage) = all.get(key) {
            let mut waiter = stage.subscribe();
            // What it last said is news to one who comes now.
            waiter.mark_changed();
            return Waiter(waiter);
        }
        let (stage, waiter) = watch::channel(Stage { progress: String::new(), outcome: None });
        all.insert(key.to_owned(), stage.clone());
        drop(all);
        let landing = Landing { all: Arc::clone(&self.0), key: key.to_owned() };
        let work = work(Teller(stage.clone()));
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = work => Some(outcome),
                () = landing.abandoned(&stage) => None,
            };
            // Who comes from now on begins anew.
            drop(landing);
            if outcome.is_some() {
                stage.send_modify(|stage| stage.outcome = outcome);
            }
        });
        Waiter(waiter)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    impl<T: Clone> Waiter<T> {
        /// The outcome. `None`: the work broke down.
        pub(crate) async fn outcome(mut self) -> Option<T> {
            loop {
                if let News::Outcome(outcome) = self.next().await? {
                    return Some(outcome);
                }
            }
        }
    }

    #[tokio::test]
    async fn two_who_want_the_same_wait_for_one_work_and_hear_how_far_it_is() {
        let flights = Flights::new();
        let (go, mut gate) = mpsc::channel::<()>(1);
        let mut first = flights.join("a", |teller| async move {
            teller.tell("half".to_owned());
            gate.recv().await;
            7
        });
        assert_eq!(first.next().await, Some(News::Progress("half".to_owned())));
        let mut second = flights.join("a", |_| async { unreachable!("it is under way") });
        assert_eq!(second.next().await, Some(News::Progress("half".to_owned())));
        go.send(()).await.expect("it waits");
        assert_eq!((first.outcome().await, second.outcome().await), (Some(7), Some(7)));
        assert_eq!(flights.join("a", |_| async { 8 }).outcome().await, Some(8));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_broken_off_and_begun_anew() {
        let flights = Flights::<u8>::new();
        let (alive, mut dropped) = mpsc::channel::<()>(1);
        let waiter = flights.join("a", |_| async move {
            let _alive = alive;
            std::future::pending().await
        });
        drop(waiter);
        assert_eq!(dropped.recv().await, None);
        assert_eq!(flights.join("a", |_| async { 1 }).outcome().await, Some(1));
    }

    #[tokio::test]
    async fn work_that_breaks_down_is_told() {
        let flights = Flights::<u8>::new();
        assert_eq!(flights.join("a", |_| async { panic!("broken") }).outcome().await, None);
        assert_eq!(flights.join("a", |_| async { 1 }).outcome().await, Some(1));
    }
}
