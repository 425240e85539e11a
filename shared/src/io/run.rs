//! What the operator tells a running process by signals.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Read the configuration again (SIGHUP).
    Reload,
    /// Finish what is begun and end (SIGTERM, SIGINT).
    Stop,
}

/// Signals as they come.
pub struct Orders {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Orders {
    /// Takes over the signals; from now on they no longer end the process by themselves.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next order.
    pub async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.hangup.recv() => Order::Reload,
            _ = self.terminate.recv() => Order::Stop,
            _ = self.interrupt.recv() => Order::Stop,
        }
    }
}
