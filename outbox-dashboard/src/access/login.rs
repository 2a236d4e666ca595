//! The logins of a dashboard.

use super::{
    Grant, Refusal, Role,
    loopback::{self, NotLocal, ServedByItself},
};
use axum::http::{HeaderValue, header, request::Parts};
use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, fmt, sync::Arc};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// Fewest characters of a password: what a person can keep, and a guesser on the network cannot try.
const SHORTEST_PASSWORD: usize = 12;
/// Fewest characters of a token: a program reads it from a file, so that it costs nothing.
const SHORTEST_TOKEN: usize = 20;
/// Who acts without a login, in the audit.
const LOOPBACK: &str = "loopback";

/// The login of a service that the dashboard is part of.
type OwnLogin = Arc<dyn Fn(&Parts) -> Option<Grant> + Send + Sync>;

/// Who gets in. Unless told otherwise, a dashboard serves this machine alone: as operator where
/// [`serve`](crate::Dashboard::serve) serves it by itself, and as reader where its
/// [`router`](crate::Dashboard::router) is part of a service, which a proxy may stand before.
///
/// | by | who | for |
/// | --- | --- | --- |
/// | [`loopback`](Self::loopback) | everybody on this machine, as operator | development, an SSH tunnel |
/// | [`basic`](Self::basic) | people with a name and a password, which their browser asks for | a few operators, behind TLS |
/// | [`bearer`](Self::bearer) | programs with a token | the JSON API |
/// | [`custom`](Self::custom) | whomever the service has let in | single sign-on, sessions |
///
/// ```
/// use outbox_dashboard::{Access, Permission, Role};
/// let access = Access::basic([
///     ("ann", "correct horse battery", Role::Operator),
///     ("bob", "staple of the paper", Role::acts([Permission::Redrive])),
/// ])
/// .with_bearer([("monitor", "7d3f0c6b1f5e4b0f9a41", Role::Reader)]);
/// ```
#[derive(Clone)]
pub struct Access(Kind);

#[derive(Clone)]
enum Kind {
    Loopback,
    /// Nothing was said.
    Unset,
    Logins(Vec<Login>),
    Own(OwnLogin),
}

/// How a login is written in the header `authorization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scheme {
    Basic,
    Bearer,
}

/// A login. Its secret is not kept: a digest has the same length for each, so that a comparison
/// takes the same time.
#[derive(Clone)]
struct Login {
    scheme: Scheme,
    digest: [u8; 32],
    secret_length: usize,
    grant: Grant,
}

/// What is wrong with the logins of a dashboard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AccessFault {
    /// There is no login.
    #[error("no login is configured, so that nobody gets in: add one")]
    NoLogin,
    /// A name cannot be one.
    #[error("the login {0:?} has a name that is empty, or has a colon or a control character")]
    Name(String),
    /// A name is given twice.
    #[error("two logins are named {0:?}: the audit could not tell who acted")]
    Repeated(String),
    /// A password or token is too short.
    #[error("the secret of the login {who:?} has fewer than {shortest} characters")]
    Short {
        /// The login.
        who: String,
        /// The fewest characters that are allowed.
        shortest: usize,
    },
}

impl Access {
    /// Lets everybody on this machine in, as operator, and nobody else. The audit has the name
    /// `loopback`.
    ///
    /// A request must come from a loopback address, must ask for one (or for `localhost`, or a name
    /// under it), and must not have passed a proxy. A nested router learns the peer's address by
    /// `into_make_service_with_connect_info::<SocketAddr>()`; without it, nobody gets in.
    ///
    /// A proxy on this machine that adds no header cannot be told from a visitor: behind any proxy,
    /// give the dashboard a login.
    #[must_use]
    pub fn loopback() -> Self {
        Self(Kind::Loopback)
    }

    /// The access of a dashboard to which none was given.
    pub(crate) fn unset() -> Self {
        Self(Kind::Unset)
    }

    /// Tells whether no access was given.
    pub(crate) const fn is_unset(&self) -> bool {
        matches!(self.0, Kind::Unset)
    }

    /// Says in the refusal of an act how a dashboard to which no access was given allows it.
    pub(super) fn explain(&self, refusal: Refusal) -> Refusal {
        match self.0 {
            Kind::Unset => refusal.advising(
                "This dashboard is part of a service and has no login, so that this machine reads \
                 and nobody acts: give it `Access::loopback()`, or a login, with \
                 Dashboard::builder().access(..).",
            ),
            Kind::Loopback | Kind::Logins(_) | Kind::Own(_) => refusal,
        }
    }

    /// Lets people in by name, password and role; their browser asks for both. Browsers send both
    /// with each request, readable unless TLS hides it.
    #[must_use]
    pub fn basic<N: Into<String>, S: AsRef<str>>(
        logins: impl IntoIterator<Item = (N, S, Role)>,
    ) -> Self {
        let login =
            |(who, secret, may): (N, S, Role)| Login::basic(who.into(), secret.as_ref(), may);
        Self(Kind::Logins(logins.into_iter().map(login).collect()))
    }

    /// Lets programs in by a token and role; the name is for the audit.
    #[must_use]
    pub fn bearer<N: Into<String>, S: AsRef<str>>(
        logins: impl IntoIterator<Item = (N, S, Role)>,
    ) -> Self {
        Self(Kind::Logins(Vec::new())).with_bearer(logins)
    }

    /// Lets programs in by a token too.
    #[must_use]
    pub fn with_bearer<N: Into<String>, S: AsRef<str>>(
        self,
        logins: impl IntoIterator<Item = (N, S, Role)>,
    ) -> Self {
        let login =
            |(who, secret, may): (N, S, Role)| Login::bearer(who.into(), secret.as_ref(), may);
        let more = logins.into_iter().map(login);
        match self.0 {
            Kind::Logins(mut all) => {
                all.extend(more);
                Self(Kind::Logins(all))
            }
            Kind::Loopback | Kind::Unset | Kind::Own(_) => Self(Kind::Logins(more.collect())),
        }
    }

    /// Lets those in whom the service has let in: the function sees each request, with what the
    /// layers of the service have put into its extensions, and gives who it is; `None` refuses.
    ///
    /// ```
    /// use outbox_dashboard::{Access, Grant, Role};
    /// #[derive(Clone)]
    /// struct Session { user: String, is_admin: bool }
    ///
    /// let access = Access::custom(|parts| {
    ///     let session = parts.extensions.get::<Session>()?;
    ///     let role = if session.is_admin { Role::Operator } else { Role::Reader };
    ///     Some(Grant::new(&session.user, role))
    /// });
    /// ```
    #[must_use]
    pub fn custom(login: impl Fn(&Parts) -> Option<Grant> + Send + Sync + 'static) -> Self {
        Self(Kind::Own(Arc::new(login)))
    }

    /// Tells whether it has a login, so that an address that others reach may be served.
    pub(crate) const fn has_login(&self) -> bool {
        !matches!(self.0, Kind::Loopback | Kind::Unset)
    }

    /// Says all that is wrong with it.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.all_faults().iter().map(ToString::to_string).collect()
    }

    fn all_faults(&self) -> Vec<AccessFault> {
        let Kind::Logins(logins) = &self.0 else { return Vec::new() };
        let mut names = BTreeSet::new();
        let mut faults = Vec::new();
        if logins.is_empty() {
            faults.push(AccessFault::NoLogin);
        }
        for Login { scheme, secret_length, grant, .. } in logins {
            let who = &grant.who;
            if who.is_empty() || who.contains(|c: char| c == ':' || c.is_control()) {
                faults.push(AccessFault::Name(who.clone()));
            }
            if !names.insert(who) {
                faults.push(AccessFault::Repeated(who.clone()));
            }
            let shortest = scheme.shortest();
            if *secret_length < shortest {
                faults.push(AccessFault::Short { who: who.clone(), shortest });
            }
        }
        faults
    }

    /// Finds out who asks.
    pub(super) fn grant(&self, parts: &Parts) -> Result<Grant, Refusal> {
        match &self.0 {
            Kind::Loopback => on_this_machine(parts, Role::Operator),
            Kind::Unset => match parts.extensions.get::<ServedByItself>() {
                Some(ServedByItself) => on_this_machine(parts, Role::Operator),
                None => on_this_machine(parts, Role::Reader),
            },
            Kind::Logins(logins) => find(logins, parts),
            Kind::Own(login) => login(parts).ok_or_else(|| {
                Refusal::forbidden("You are not let in")
                    .because("the service that this page is part of does not know you")
                    .advising("Log in to the service first, then come back.")
            }),
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Loopback => f.write_str("Access::Loopback"),
            Kind::Unset => f.write_str("Access::Unset"),
            Kind::Logins(logins) => {
                f.debug_list().entries(logins.iter().map(|login| &login.grant)).finish()
            }
            Kind::Own(_) => f.write_str("Access::Custom"),
        }
    }
}

impl Default for Access {
    fn default() -> Self {
        Self::loopback()
    }
}

impl Scheme {
    const fn shortest(self) -> usize {
        match self {
            Self::Basic => SHORTEST_PASSWORD,
            Self::Bearer => SHORTEST_TOKEN,
        }
    }

    const fn challenge(self) -> HeaderValue {
        match self {
            Self::Basic => HeaderValue::from_static("Basic realm=\"outbox\", charset=\"UTF-8\""),
            Self::Bearer => HeaderValue::from_static("Bearer realm=\"outbox\""),
        }
    }
}

impl Login {
    fn basic(who: String, password: &str, may: Role) -> Self {
        let digest = Sha256::digest(format!("{who}:{password}")).into();
        let secret_length = password.chars().count();
        Self { scheme: Scheme::Basic, digest, secret_length, grant: Grant { who, may } }
    }

    fn bearer(who: String, token: &str, may: Role) -> Self {
        let secret_length = token.chars().count();
        let digest = Sha256::digest(token).into();
        Self { scheme: Scheme::Bearer, digest, secret_length, grant: Grant { who, may } }
    }
}

/// Finds the login of a request. It compares with every login, whichever fits, so that the time
/// says nothing.
fn find(logins: &[Login], parts: &Parts) -> Result<Grant, Refusal> {
    let Some((scheme, secret)) = given(parts) else {
        return Err(no_login(logins, "this page asks for a login"));
    };
    let digest: [u8; 32] = Sha256::digest(secret).into();
    let mut fits = u64::MAX;
    for (number, login) in (0_u64..).zip(logins) {
        let is_it = login.digest.ct_eq(&digest) & Choice::from(u8::from(login.scheme == scheme));
        fits.conditional_assign(&number, is_it);
    }
    let found = usize::try_from(fits).ok().and_then(|fits| logins.get(fits));
    found.map(|login| login.grant.clone()).ok_or_else(|| {
        let peer = parts.extensions.get::<axum::extract::ConnectInfo<std::net::SocketAddr>>();
        let peer = peer.map(|peer| tracing::field::display(peer.0));
        tracing::warn!(peer, "a login of the dashboard was refused");
        no_login(logins, "no login has this name and password, or this token")
    })
}

/// Reads what a request gives as its login.
fn given(parts: &Parts) -> Option<(Scheme, Vec<u8>)> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, value) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("basic") {
        return Some((Scheme::Basic, BASE64_STANDARD.decode(value.trim()).ok()?));
    }
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    is_bearer.then(|| (Scheme::Bearer, value.trim().as_bytes().to_vec()))
}

fn no_login(logins: &[Login], why: &str) -> Refusal {
    let schemes: BTreeSet<Scheme> = logins.iter().map(|login| login.scheme).collect();
    Refusal::unauthorized(schemes.into_iter().map(Scheme::challenge).collect())
        .because(why)
        .advising("Load the page again and log in, or ask whoever runs this dashboard for a login.")
}

/// Lets a request in that was made on this machine.
fn on_this_machine(parts: &Parts, may: Role) -> Result<Grant, Refusal> {
    loopback::check(parts).map(|()| Grant::new(LOOPBACK, may)).map_err(not_local)
}

fn not_local(why: NotLocal) -> Refusal {
    let refusal = Refusal::forbidden("Only this machine gets in");
    match why {
        NotLocal::PeerUnknown => refusal
            .because("this dashboard has no login, and the server does not say who asks")
            .advising(
                "Serve the router by into_make_service_with_connect_info::<SocketAddr>(), or give \
                 the dashboard a login with Dashboard::builder().access(..).",
            ),
        NotLocal::Peer => refusal
            .because("this dashboard has no login, and you ask from another machine")
            .advising(
                "Use an SSH tunnel, or give the dashboard a login with \
                 Dashboard::builder().access(..).",
            ),
        NotLocal::Proxied => refusal
            .because("this dashboard has no login, and a proxy has forwarded the request")
            .advising(
                "Give the dashboard a login with Dashboard::builder().access(..): behind a proxy \
                 everybody seems to be on this machine.",
            ),
        NotLocal::Host => refusal
            .because(
                "this dashboard has no login, and the name in the address is not this machine's",
            )
            .advising("Open it as localhost or 127.0.0.1, or give it a login."),
        NotLocal::Origin => refusal
            .because("this dashboard has no login, and a page of another machine asks")
            .advising("Open the dashboard itself, as localhost or 127.0.0.1, or give it a login."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{Request, StatusCode};

    fn parts(authorization: &str) -> Parts {
        let request = Request::builder().header(header::AUTHORIZATION, authorization);
        request.body(()).unwrap().into_parts().0
    }

    fn access() -> Access {
        Access::basic([
            ("ann", "correct horse battery", Role::Operator),
            ("bob", "staple of the paper", Role::Reader),
        ])
        .with_bearer([("monitor", "7d3f0c6b1f5e4b0f9a41", Role::Reader)])
    }

    #[test]
    fn a_login_is_found_by_its_name_and_secret_and_its_scheme() {
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        for (authorization, who) in [
            (basic("ann:correct horse battery"), Some("ann")),
            (basic("bob:staple of the paper"), Some("bob")),
            (basic("bob:staple of the paper").replacen("Basic", "bAsIc", 1), Some("bob")),
            ("Bearer 7d3f0c6b1f5e4b0f9a41".to_owned(), Some("monitor")),
            (basic("ann:staple of the paper"), None),
            (basic("ann:"), None),
            (basic("7d3f0c6b1f5e4b0f9a41"), None),
            ("Bearer ann:correct horse battery".to_owned(), None),
            ("Bearer ".to_owned(), None),
            ("Basic %%%".to_owned(), None),
            ("Digest x".to_owned(), None),
            ("7d3f0c6b1f5e4b0f9a41".to_owned(), None),
        ] {
            let seen = access().grant(&parts(&authorization));
            let seen = seen.map(|grant| grant.who).map_err(|refusal| refusal.status());
            assert_eq!(
                seen,
                who.map(str::to_owned).ok_or(StatusCode::UNAUTHORIZED),
                "{authorization}"
            );
        }
    }

    #[test]
    fn logins_that_are_not_safe_are_refused_with_all_their_faults() {
        let faults = Access::basic([
            ("a:b", "correct horse battery", Role::Reader),
            ("ann", "short", Role::Reader),
            ("ann", "correct horse battery", Role::Reader),
        ])
        .with_bearer([("", "token", Role::Reader)])
        .all_faults();
        assert_eq!(
            faults,
            [
                AccessFault::Name("a:b".into()),
                AccessFault::Short { who: "ann".into(), shortest: SHORTEST_PASSWORD },
                AccessFault::Repeated("ann".into()),
                AccessFault::Name(String::new()),
                AccessFault::Short { who: String::new(), shortest: SHORTEST_TOKEN },
            ]
        );
        assert_eq!(Access::bearer::<&str, &str>([]).all_faults(), [AccessFault::NoLogin]);
        assert!(access().faults().is_empty() && Access::loopback().faults().is_empty());
    }

    #[test]
    fn no_secret_is_shown() {
        let shown = format!("{:?}", access());
        assert!(
            shown.contains("ann") && !shown.contains("horse") && !shown.contains("7d3f"),
            "{shown}"
        );
    }
}
