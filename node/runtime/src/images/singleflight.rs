//! Single flight: concurrent requests for the same work share one execution, its progress and its result.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The state of one execution.
#[derive(Debug, Clone)]
struct State<T> {
    progress: String,
    result: Option<T>,
}

/// Executions by key. Each subscriber holds a receiver, so the number of receivers is that of subscribers.
type Executions<T> = BTreeMap<String, watch::Sender<State<T>>>;

/// The executions of one kind of work.
#[derive(Debug)]
pub(crate) struct Group<T>(Arc<Mutex<Executions<T>>>);

/// Reports the progress of an execution to its subscribers.
#[derive(Debug, Clone)]
pub(crate) struct ProgressSender<T>(watch::Sender<State<T>>);

impl<T> ProgressSender<T> {
    /// Sets the progress, a text for people.
    pub(crate) fn send(&self, progress: String) {
        self.0.send_if_modified(|state| {
            let changed = state.progress != progress;
            state.progress = progress;
            changed
        });
    }
}

/// A subscription to an execution. The work is cancelled when the last one is dropped.
#[derive(Debug)]
pub(crate) struct Subscription<T>(watch::Receiver<State<T>>);

/// What a subscriber receives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Update<T> {
    /// The latest progress; intermediate ones may be skipped.
    Progress(String),
    /// The result, which is the last update.
    Done(T),
}

impl<T: Clone> Subscription<T> {
    /// Waits for the next update; `None` when the work panicked.
    pub(crate) async fn next(&mut self) -> Option<Update<T>> {
        self.0.changed().await.ok()?;
        let state = self.0.borrow_and_update();
        Some(match &state.result {
            Some(result) => Update::Done(result.clone()),
            None => Update::Progress(state.progress.clone()),
        })
    }
}

/// Removes an execution from its group when dropped, also when the work panics.
struct RemoveOnDrop<T> {
    all: Arc<Mutex<Executions<T>>>,
    key: String,
}

impl<T> RemoveOnDrop<T> {
    fn lock(&self) -> MutexGuard<'_, Executions<T>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there are no subscribers, and prevents new ones.
    async fn abandoned(&self, state: &watch::Sender<State<T>>) {
        loop {
            state.closed().await;
            let mut all = self.lock();
            if state.receiver_count() == 0 {
                all.remove(&self.key);
                return;
            }
        }
    }
}

impl<T> Drop for RemoveOnDrop<T> {
    fn drop(&mut self) {
        self.lock().remove(&self.key);
    }
}

impl<T: Clone + Send + Sync + 'static> Group<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// Subscribes to the execution with this key, starting `work` in a task of its own where there is none.
    pub(crate) fn join<F>(
        &self,
        key: &str,
        work: impl FnOnce(ProgressSender<T>) -> F,
    ) -> Subscription<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = all.get(key) {
            let mut subscription = state.subscribe();
            // The current progress is the first update of a late subscriber.
            subscription.mark_changed();
            return Subscription(subscription);
        }
        let (state, subscription) = watch::channel(State { progress: String::new(), result: None });
        all.insert(key.to_owned(), state.clone());
        drop(all);
        let remove = RemoveOnDrop { all: Arc::clone(&self.0), key: key.to_owned() };
        let work = work(ProgressSender(state.clone()));
        tokio::spawn(async move {
            let result = tokio::select! {
                result = work => Some(result),
                () = remove.abandoned(&state) => None,
            };
            // Removed before the result is sent: later requests start anew.
            drop(remove);
            if result.is_some() {
                state.send_modify(|state| state.result = result);
            }
        });
        Subscription(subscription)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    impl<T: Clone> Subscription<T> {
        /// The result; `None` when the work panicked.
        pub(crate) async fn result(mut self) -> Option<T> {
            loop {
                if let Update::Done(result) = self.next().await? {
                    return Some(result);
                }
            }
        }
    }

    #[tokio::test]
    async fn concurrent_requests_share_one_execution_and_its_progress() {
        let group = Group::new();
        let (go, mut gate) = mpsc::channel::<()>(1);
        let mut first = group.join("a", |progress| async move {
            progress.send("half".to_owned());
            gate.recv().await;
            7
        });
        assert_eq!(first.next().await, Some(Update::Progress("half".to_owned())));
        let mut second = group.join("a", |_| async { unreachable!("it is running") });
        assert_eq!(second.next().await, Some(Update::Progress("half".to_owned())));
        go.send(()).await.expect("it waits");
        assert_eq!((first.result().await, second.result().await), (Some(7), Some(7)));
        assert_eq!(group.join("a", |_| async { 8 }).result().await, Some(8));
    }

    #[tokio::test]
    async fn work_without_subscribers_is_cancelled_and_starts_anew_on_request() {
        let group = Group::<u8>::new();
        let (alive, mut dropped) = mpsc::channel::<()>(1);
        let subscription = group.join("a", |_| async move {
            let _alive = alive;
            std::future::pending().await
        });
        drop(subscription);
        assert_eq!(dropped.recv().await, None);
        assert_eq!(group.join("a", |_| async { 1 }).result().await, Some(1));
    }

    #[tokio::test]
    async fn a_panic_in_the_work_ends_the_subscription() {
        let group = Group::<u8>::new();
        assert_eq!(group.join("a", |_| async { panic!("broken") }).result().await, None);
        assert_eq!(group.join("a", |_| async { 1 }).result().await, Some(1));
    }
}
