//! Reaching the service: its URL with the credentials, TLS, timeouts, and the SDK's clients.

use crate::{
    classify::Failure,
    config::{ConfigError, ConfigFault},
};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider},
};
use aws_sdk_sqs::{
    config::{
        BehaviorVersion, Region, SharedHttpClient, StalledStreamProtectionConfig,
        retry::RetryConfig, timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use outbox_core::transport::is_loopback;
use percent_encoding::percent_decode_str;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;
use tracing::{Dispatch, instrument::WithSubscriber};

/// How long the service may take for one reply, unless set.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The region of an endpoint that is not AWS's own, unless the URL names one: what emulators take.
const USUAL_REGION: &str = "us-east-1";
/// What a request to an emulator is signed with where no key is given: emulators check none.
const EMULATOR_KEY: &str = "emulator";

/// Where the service is and how to reach it: what publishers and subscribers configure alike.
#[derive(Clone)]
pub(crate) struct ServiceUrl {
    pub(crate) region: String,
    pub(crate) account: Option<String>,
    /// `None` for AWS's own endpoint of the region.
    endpoint: Option<Endpoint>,
    keys: Option<Credentials>,
    pub(crate) provider: Option<SharedCredentialsProvider>,
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) timeout: Duration,
    /// Whether the warning about unencrypted events was logged.
    warned: Arc<AtomicBool>,
}

/// An endpoint that is not AWS's own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    encrypted: bool,
    /// Host and port.
    address: String,
}

impl Endpoint {
    fn url(&self) -> String {
        format!("{}://{}", if self.encrypted { "https" } else { "http" }, self.address)
    }

    fn host(&self) -> &str {
        let end = match self.address.rfind(']') {
            Some(end) => end + 1,
            None => self.address.find(':').unwrap_or(self.address.len()),
        };
        &self.address[..end]
    }
}

/// Cuts the login before the last `@` off.
fn without_login(rest: &str) -> (Option<&str>, &str) {
    match rest.rsplit_once('@') {
        Some((login, rest)) => (Some(login), rest),
        None => (None, rest),
    }
}

impl ServiceUrl {
    /// Reads a URL.
    pub(crate) fn parse(url: &str) -> Result<Self, ConfigError> {
        Self::read(url).ok_or_else(|| ConfigFault::Url.into())
    }

    fn read(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let encrypted = match scheme {
            "sqs" | "sns" => None,
            "sqs+https" | "sns+https" => Some(true),
            "sqs+http" | "sns+http" => Some(false),
            _ => return None,
        };
        let (login, rest) = without_login(rest);
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(r, q)| (r, Some(q)));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() || rest.contains('#') {
            return None;
        }
        let account = match path.trim_end_matches('/') {
            "" => None,
            account if account.bytes().all(|b| b.is_ascii_digit()) => Some(account.to_owned()),
            _ => return None,
        };
        let named = match query {
            Some(query) => Some(query.strip_prefix("region=")?),
            None => None,
        };
        let (region, endpoint) = match encrypted {
            None if named.is_some() => return None,
            None => (authority, None),
            Some(encrypted) => {
                let address = authority.to_owned();
                (named.unwrap_or(USUAL_REGION), Some(Endpoint { encrypted, address }))
            }
        };
        let is_region = !region.is_empty()
            && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let keys = match login {
            Some(login) => Some(keys_of(login)?),
            None => None,
        };
        is_region.then(|| Self {
            region: region.to_owned(),
            account,
            endpoint,
            keys,
            provider: None,
            roots: Vec::new(),
            timeout: TIMEOUT,
            warned: Arc::default(),
        })
    }

    /// Gives region or host, and account: the parts of the URL that hold no secret.
    pub(crate) fn destination(&self) -> String {
        let place = self.endpoint.as_ref().map_or(&self.region, |endpoint| &endpoint.address);
        match &self.account {
            Some(account) => format!("{place}/{account}"),
            None => place.clone(),
        }
    }

    /// Gives the ARN of a topic of the account, where it is known.
    pub(crate) fn topic_arn(&self, name: &str) -> Option<String> {
        let partition = match &*self.region {
            region if region.starts_with("cn-") => "aws-cn",
            region if region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        let (region, account) = (&self.region, self.account.as_ref()?);
        Some(format!("arn:{partition}:sns:{region}:{account}:{name}"))
    }

    /// Checks the settings and makes the clients; pushes what is wrong to `faults`.
    pub(crate) fn clients(&self, faults: &mut Vec<ConfigFault>) -> Option<Clients> {
        let before = faults.len();
        if self.timeout.is_zero() {
            faults
                .push(ConfigFault::Range { what: "the timeout", rule: "must be longer than zero" });
        }
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let credentials = self.credentials(variable);
        if credentials.is_none() {
            faults.push(ConfigFault::NoCredentials);
        }
        let http = self.http().map_err(|fault| faults.push(fault)).ok()?;
        let credentials = credentials.filter(|_| faults.len() == before)?;
        if let Some(endpoint) = &self.endpoint
            && !endpoint.encrypted
            && !is_loopback(endpoint.host())
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                host = endpoint.host(),
                "events go unencrypted: the URL is http and the host is not loopback"
            );
        }
        Some(self.with_http(&http, &credentials))
    }

    /// Gives the provider, else the keys of the URL, else those of the environment.
    fn credentials(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Option<SharedCredentialsProvider> {
        if let Some(provider) = &self.provider {
            return Some(provider.clone());
        }
        let of_environment = || {
            let (key, secret) =
                (variable("AWS_ACCESS_KEY_ID")?, variable("AWS_SECRET_ACCESS_KEY")?);
            let token = variable("AWS_SESSION_TOKEN");
            Some(Credentials::new(key, secret, token, None, "environment"))
        };
        let of_emulator = || {
            let is_here = |endpoint: &Endpoint| is_loopback(endpoint.host());
            let key = || Credentials::new(EMULATOR_KEY, EMULATOR_KEY, None, None, EMULATOR_KEY);
            self.endpoint.as_ref().is_some_and(is_here).then(key)
        };
        let keys = self.keys.clone().or_else(of_environment).or_else(of_emulator)?;
        Some(SharedCredentialsProvider::new(keys))
    }

    /// Sets HTTP up: TLS with this crate's own crypto provider, whatever the process has installed.
    fn http(&self) -> Result<SharedHttpClient, ConfigFault> {
        let mut trusted = TrustStore::default();
        for pem in &self.roots {
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            if !found.is_ok_and(|found| !found.is_empty()) {
                let text = "a certificate given to trust() is no PEM certificate";
                return Err(ConfigFault::Tls(text.to_owned()));
            }
            trusted = trusted.with_pem_certificate(pem.as_slice());
        }
        let builder = aws_smithy_http_client::Builder::new();
        if self.endpoint.as_ref().is_some_and(|endpoint| !endpoint.encrypted) {
            return Ok(builder.build_http());
        }
        let context = TlsContext::builder().with_trust_store(trusted).build();
        let context = context.map_err(|error| ConfigFault::Tls(error.to_string()))?;
        let builder = builder.tls_provider(Provider::Rustls(CryptoMode::Ring));
        Ok(builder.tls_context(context).build_https())
    }

    fn with_http(&self, http: &SharedHttpClient, keys: &SharedCredentialsProvider) -> Clients {
        let region = Region::new(self.region.clone());
        // The relay tries again, and the receiver asks again: here, each failure is seen.
        let (retry, protection) =
            (RetryConfig::disabled(), StalledStreamProtectionConfig::disabled());
        let timeouts = TimeoutConfig::builder().connect_timeout(self.timeout).build();
        let mut sqs = aws_sdk_sqs::config::Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(region.clone())
            .credentials_provider(keys.clone())
            .http_client(http.clone())
            .retry_config(retry.clone())
            .timeout_config(timeouts.clone())
            .stalled_stream_protection(protection.clone());
        let mut sns = aws_sdk_sns::config::Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(region)
            .credentials_provider(keys.clone())
            .http_client(http.clone())
            .retry_config(retry)
            .timeout_config(timeouts)
            .stalled_stream_protection(protection);
        if let Some(endpoint) = &self.endpoint {
            (sqs, sns) = (sqs.endpoint_url(endpoint.url()), sns.endpoint_url(endpoint.url()));
        }
        Clients {
            sqs: aws_sdk_sqs::Client::from_conf(sqs.build()),
            sns: aws_sdk_sns::Client::from_conf(sns.build()),
            timeout: self.timeout,
        }
    }

    /// Takes the credentials from a provider.
    pub(crate) fn set_provider(&mut self, provider: impl ProvideCredentials + 'static) {
        self.provider = Some(SharedCredentialsProvider::new(provider));
    }
}

/// Reads `KEY:SECRET`, percent-encoded.
fn keys_of(login: &str) -> Option<Credentials> {
    let decoded = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
    let (key, secret) = login.split_once(':')?;
    let (key, secret) = (decoded(key)?, decoded(secret)?);
    (!key.is_empty() && !secret.is_empty())
        .then(|| Credentials::new(key, secret, None, None, "URL"))
}

/// The SDK's clients of both services, over the same connections.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    pub(crate) sqs: aws_sdk_sqs::Client,
    pub(crate) sns: aws_sdk_sns::Client,
    pub(crate) timeout: Duration,
}

impl Clients {
    /// Waits for the reply to a request. `omission` says what the service did not do where it does
    /// not reply in time.
    ///
    /// # Cancel safety
    /// The service may carry out the request of a call that is dropped.
    pub(crate) async fn request<T, E>(
        &self,
        omission: &str,
        reply: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        self.request_for(omission, self.timeout, reply).await
    }

    /// Waits as [`request`](Self::request) does, for a time that is given.
    ///
    /// # Cancel safety
    /// As [`request`](Self::request).
    pub(crate) async fn request_for<T, E>(
        &self,
        omission: &str,
        within: Duration,
        reply: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        // At TRACE the SDK logs whole messages, and session tokens.
        let reply = reply.with_subscriber(Dispatch::none());
        match timeout(within, reply).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(Failure::from_sdk(&error)),
            Err(_) => Err(Failure::timed_out(omission, within)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> ServiceUrl {
        ServiceUrl::parse(url).expect("a URL")
    }

    #[test]
    fn a_url_names_a_region_of_aws_or_an_endpoint_and_its_keys_are_not_shown() {
        for (url, destination, region) in [
            ("sqs://eu-central-1", "eu-central-1", "eu-central-1"),
            ("sns://eu-central-1/123456789012", "eu-central-1/123456789012", "eu-central-1"),
            ("sqs+http://127.0.0.1:4566", "127.0.0.1:4566", "us-east-1"),
            ("sqs+http://k:s@127.0.0.1:4566/", "127.0.0.1:4566", "us-east-1"),
            ("sns+https://aws.example?region=eu-west-1", "aws.example", "eu-west-1"),
            ("sqs+http://[::1]:4566/000000000000", "[::1]:4566/000000000000", "us-east-1"),
        ] {
            let url = parsed(url);
            assert_eq!((url.destination().as_str(), url.region.as_str()), (destination, region));
        }
        for wrong in [
            "",
            "eu-central-1",
            "http://127.0.0.1:4566",
            "sqs://",
            "sqs://EU",
            "sqs://eu-central-1/orders",
            "sqs://eu-central-1?region=eu-west-1",
            "sqs+http://",
            "sqs+http://k:secret@",
            "sqs+http://secret@127.0.0.1",
            "sqs+http://k:%ff@127.0.0.1",
            "sqs+http://127.0.0.1?zone=secret",
        ] {
            let error = ServiceUrl::parse(wrong).err().expect("no URL");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_host_is_what_stands_before_the_port() {
        let host = |url: &str| parsed(url).endpoint.expect("an endpoint").host().to_owned();
        assert_eq!(host("sqs+http://127.0.0.1:4566"), "127.0.0.1");
        assert_eq!(host("sqs+http://[::1]:4566"), "[::1]");
        assert_eq!(host("sqs+http://localhost"), "localhost");
    }

    #[test]
    fn a_topic_has_an_arn_where_the_account_is_known() {
        let arn = |url: &str| parsed(url).topic_arn("orders");
        assert_eq!(
            arn("sns://eu-central-1/123456789012").as_deref(),
            Some("arn:aws:sns:eu-central-1:123456789012:orders")
        );
        assert!(arn("sns://cn-north-1/1").is_some_and(|arn| arn.starts_with("arn:aws-cn:")));
        assert!(arn("sns://us-gov-west-1/1").is_some_and(|arn| arn.starts_with("arn:aws-us-gov:")));
        assert_eq!(arn("sns://eu-central-1"), None);
    }

    #[test]
    fn keys_are_the_urls_or_the_environments_and_an_emulator_needs_none() {
        let nothing = |_: &str| None;
        let set = |name: &str| name.starts_with("AWS_").then(|| "value".to_owned());
        let far = parsed("sqs://eu-central-1");
        assert!(far.credentials(nothing).is_none());
        assert!(far.credentials(set).is_some());
        assert!(parsed("sqs+https://aws.example").credentials(nothing).is_none());
        assert!(parsed("sqs+http://k:s@aws.example").credentials(nothing).is_some());
        assert!(parsed("sqs+http://127.0.0.1:4566").credentials(nothing).is_some());
        let half = |name: &str| (name == "AWS_ACCESS_KEY_ID").then(|| "value".to_owned());
        assert!(far.credentials(half).is_none(), "a key without its secret");
    }
}
