//! What a connection has been given to send and its socket has not taken yet. Content waits for room here before it is
//! looked for: what a client does not take is held by nobody on its behalf, but for a share that is small where many
//! wait.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Of one connection; all of its requests share it.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: AtomicUsize,
    has_waiting: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Backlog {
    /// Content that is on its way to the socket from now on.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The socket has taken this much. Heads count among it, so that the backlog is rather said too small, until it is
    /// empty.
    pub fn taken(&self, bytes: usize) {
        let _ = self.bytes.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |before| {
            Some(before.saturating_sub(bytes))
        });
        self.wake();
    }

    /// The socket has taken all, or what is left has been given up.
    pub fn clear(&self) {
        // Mostly it is empty already: all was taken.
        if self.bytes.load(Ordering::Relaxed) > 0 {
            self.bytes.store(0, Ordering::SeqCst);
        }
        self.wake();
    }

    /// Ready while less than `most` bytes wait for the socket.
    pub fn poll_room(&self, cx: &Context<'_>, most: usize) -> Poll<()> {
        if self.bytes.load(Ordering::Relaxed) < most.max(1) {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        self.has_waiting.store(true, Ordering::SeqCst);
        drop(waiting);
        // It may have been taken meanwhile, on another thread.
        match self.bytes.load(Ordering::SeqCst) < most.max(1) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn wake(&self) {
        // Looked at after the bytes have changed, as `poll_room` looks at them again after this: one sees the other.
        if !self.has_waiting.load(Ordering::SeqCst) {
            return;
        }
        self.has_waiting.store(false, Ordering::SeqCst);
        let waiting =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn content_waits_until_the_socket_has_taken_enough() {
        let (backlog, count) = (Backlog::default(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let woken = || count.0.load(Ordering::Relaxed);
        assert!(backlog.poll_room(&cx, 100).is_ready());
        backlog.add(150);
        assert!(backlog.poll_room(&cx, 100).is_pending());
        assert!(backlog.poll_room(&cx, 100).is_pending());
        backlog.taken(50);
        assert_eq!(woken(), 1, "one that waits is woken once, and looks again");
        assert!(backlog.poll_room(&cx, 100).is_pending());
        backlog.taken(1);
        assert!(backlog.poll_room(&cx, 100).is_ready());
        // Heads were taken, too: never less than nothing.
        backlog.taken(1000);
        backlog.add(100);
        assert!(backlog.poll_room(&cx, 100).is_pending());
        backlog.clear();
        assert!(backlog.poll_room(&cx, 0).is_ready());
        assert_eq!(woken(), 3);
    }
}
