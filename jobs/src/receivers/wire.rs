//! The only place from which something is sent to a receiver: no redirect is followed, no proxy taken from the environment, no answer read.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::header::HeaderMap;
use reqwest::{Client, ClientBuilder, StatusCode, Url, redirect};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may take to come.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// A client for all receivers. Cheap to clone.
#[derive(Clone)]
pub struct Wire(Client);

/// Why a receiver has not taken what it was sent. Says nothing that the receiver said but its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No connection.
    #[error("cannot be reached")]
    Unreachable,
    /// A certificate that this machine does not trust.
    #[error("its certificate is not trusted by this machine")]
    Certificate,
    /// No answer in time.
    #[error("no answer within 10 s")]
    Timeout,
    /// It wants us to go elsewhere.
    #[error("it answered with a redirect (HTTP {0}), which is not followed")]
    Redirect(u16),
    /// Any other answer.
    #[error("HTTP {0}")]
    Status(u16),
}

impl Fault {
    /// Whether the receiver said that it wants nothing more.
    #[must_use]
    pub fn is_final(self) -> bool {
        self == Self::Status(StatusCode::GONE.as_u16())
    }
}

/// What every client here is like: it goes where it was told to and nowhere else, and says no more of itself than what it is.
pub(crate) fn builder() -> ClientBuilder {
    Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .user_agent(concat!("starling/", env!("CARGO_PKG_VERSION")))
}

impl Wire {
    /// Makes the client.
    ///
    /// # Errors
    /// When this machine's certificates cannot be loaded.
    pub fn new() -> anyhow::Result<Self> {
        let client = builder().connect_timeout(CONNECT_PATIENCE).timeout(PATIENCE).build();
        // Its own error may quote an address.
        Ok(Self(client.ok().context("this machine's certificates cannot be loaded")?))
    }

    /// Posts a body. An answer of 2xx says that it is there.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn post(&self, url: &Url, headers: HeaderMap, body: String) -> Result<(), Fault> {
        let sent = self.0.post(url.clone()).headers(headers).body(body).send().await;
        judge(sent.map_err(|error| kind(&error))?.status())
    }

    /// Asks for nothing but the status of an address.
    ///
    /// # Errors
    /// [`Fault`], never for a status that is no redirect: somebody is there.
    pub async fn knock(&self, url: &Url) -> Result<(), Fault> {
        let answer = self.0.head(url.clone()).send().await.map_err(|error| kind(&error))?;
        match judge(answer.status()) {
            Err(fault @ Fault::Redirect(_)) => Err(fault),
            _ => Ok(()),
        }
    }

    /// Asks for an address, which must answer with 2xx.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn ask(&self, url: &Url) -> Result<(), Fault> {
        let answer = self.0.get(url.clone()).send().await;
        judge(answer.map_err(|error| kind(&error))?.status())
    }
}

fn judge(status: StatusCode) -> Result<(), Fault> {
    if status.is_success() {
        Ok(())
    } else if status.is_redirection() {
        Err(Fault::Redirect(status.as_u16()))
    } else {
        Err(Fault::Status(status.as_u16()))
    }
}

/// The text of an error has the address in it, so only its kind is kept.
fn kind(error: &reqwest::Error) -> Fault {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    if error.is_timeout() {
        Fault::Timeout
    } else if causes.into_iter().any(|cause| cause.to_string().contains("certificate")) {
        Fault::Certificate
    } else {
        Fault::Unreachable
    }
}
