//! Who gets into a dashboard.

use super::{
    Grant, Refusal, Role,
    attempts::Attempts,
    loopback::{self, NotLocal, ServedByItself},
    secrets::{self, AccessFault, Given, Login},
};
use axum::{extract::ConnectInfo, http::request::Parts};
use outbox_core::runtime::now;
use std::{fmt, net::SocketAddr, sync::Arc};

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
/// | [`bearer`](Self::bearer), [`with_bearer`](Self::with_bearer) | programs with a token, also beside the others | the JSON API |
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
pub struct Access {
    way: Way,
    /// Logins by password and by token, beside that way.
    logins: Vec<Login>,
    attempts: Arc<Attempts>,
}

/// How somebody gets in who has none of the logins.
#[derive(Clone)]
enum Way {
    /// Not at all.
    No,
    Loopback,
    /// Nothing was said.
    Unset,
    Own(OwnLogin),
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
        Self::by(Way::Loopback)
    }

    /// The access of a dashboard to which none was given.
    pub(crate) fn unset() -> Self {
        Self::by(Way::Unset)
    }

    /// Tells whether no access was given.
    pub(crate) const fn is_unset(&self) -> bool {
        matches!(self.way, Way::Unset)
    }

    /// Says in the refusal of an act how a dashboard to which no access was given allows it.
    pub(super) fn explain(&self, refusal: Refusal) -> Refusal {
        match self.way {
            Way::Unset => refusal.advising(
                "This dashboard is part of a service and has no login, so that this machine reads \
                 and nobody acts: give it `Access::loopback()`, or a login, with \
                 Dashboard::builder().access(..).",
            ),
            Way::Loopback | Way::No | Way::Own(_) => refusal,
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
        Self { logins: logins.into_iter().map(login).collect(), ..Self::by(Way::No) }
    }

    /// Lets programs in by a token and role; the name is for the audit.
    #[must_use]
    pub fn bearer<N: Into<String>, S: AsRef<str>>(
        logins: impl IntoIterator<Item = (N, S, Role)>,
    ) -> Self {
        Self::by(Way::No).with_bearer(logins)
    }

    /// Lets programs in by a token too, beside whom it lets in otherwise: people with a password,
    /// whoever is on this machine, or whom the service knows. Only the service may let in somebody
    /// who gives a token that is none of these.
    #[must_use]
    pub fn with_bearer<N: Into<String>, S: AsRef<str>>(
        mut self,
        logins: impl IntoIterator<Item = (N, S, Role)>,
    ) -> Self {
        let login =
            |(who, secret, may): (N, S, Role)| Login::bearer(who.into(), secret.as_ref(), may);
        self.logins.extend(logins.into_iter().map(login));
        self
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
        Self::by(Way::Own(Arc::new(login)))
    }

    /// Tells whether it has a login, so that an address that others reach may be served.
    pub(crate) const fn has_login(&self) -> bool {
        !self.logins.is_empty() || !matches!(self.way, Way::Loopback | Way::Unset)
    }

    /// Says all that is wrong with it.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.all_faults().iter().map(ToString::to_string).collect()
    }

    fn all_faults(&self) -> Vec<AccessFault> {
        match self.way {
            Way::No if self.logins.is_empty() => vec![AccessFault::NoLogin],
            _ => secrets::faults(&self.logins),
        }
    }

    fn by(way: Way) -> Self {
        Self { way, logins: Vec::new(), attempts: Arc::default() }
    }

    /// Finds out who asks. Whoever gives a login that is none is let in by the service alone, and
    /// not because of this machine: a program with a wrong token must not act under another name.
    pub(super) fn grant(&self, parts: &Parts) -> Result<Grant, Refusal> {
        let given = Given::of(parts).filter(|_| !self.logins.is_empty());
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0);
        let claimed = peer.map(|peer| peer.ip()).zip(given.as_ref().and_then(Given::name));
        let wait = claimed.and_then(|(peer, name)| self.attempts.wait(peer, Some(name), now()));
        let looked_at = given.as_ref().filter(|_| wait.is_none());
        if let Some(login) = looked_at.and_then(|given| given.find(&self.logins)) {
            if let Some((peer, name)) = claimed {
                self.attempts.succeeded(peer, name);
            }
            return Ok(login.grant.clone());
        }
        let refused = match (&self.way, &given) {
            (Way::Own(login), _) => match login(parts) {
                Some(grant) => return Ok(grant),
                None => not_known(),
            },
            (Way::Loopback, None) => match on_this_machine(parts, Role::Operator) {
                Ok(grant) => return Ok(grant),
                Err(refusal) if self.logins.is_empty() => refusal,
                Err(_) => self.no_login("this page asks for a login"),
            },
            (Way::Unset, _) => return on_this_machine(parts, role_unless_said(parts)),
            (Way::No | Way::Loopback, _) => self.no_login("this page asks for a login"),
        };
        match (given, wait) {
            (None, _) => Err(refused),
            (Some(_), Some(wait)) => Err(Refusal::too_often(wait)),
            (Some(given), None) => Err(self.failed(peer, &given)),
        }
    }

    /// Notes a failed login, and refuses it. Lines about an address become as rare as the logins of
    /// a name, since tokens and other names do not wait.
    fn failed(&self, peer: Option<SocketAddr>, given: &Given) -> Refusal {
        let (now, mut is_told) = (now(), true);
        if let Some(peer) = peer.map(|peer| peer.ip()) {
            if let Some(name) = given.name() {
                let is_kept = given.names_one_of(&self.logins);
                self.attempts.failed(peer, Some(name), is_kept, now);
            }
            is_told = self.attempts.wait(peer, None, now).is_none();
            if is_told {
                self.attempts.failed(peer, None, true, now);
            }
        }
        if is_told {
            let peer = peer.map(tracing::field::display);
            tracing::warn!(peer, "a login of the dashboard was refused");
        }
        self.no_login("no login has this name and password, or this token")
    }

    fn no_login(&self, why: &str) -> Refusal {
        Refusal::unauthorized(secrets::challenges(&self.logins)).because(why).advising(
            "Load the page again and log in, or ask whoever runs this dashboard for a login.",
        )
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match &self.way {
            Way::No => "Logins",
            Way::Loopback => "Loopback",
            Way::Unset => "Unset",
            Way::Own(_) => "Custom",
        };
        let logins: Vec<&Grant> = self.logins.iter().map(|login| &login.grant).collect();
        f.debug_struct("Access").field("way", &way).field("logins", &logins).finish()
    }
}

impl Default for Access {
    fn default() -> Self {
        Self::loopback()
    }
}

/// Gives the role of whoever is on this machine where no access was given.
fn role_unless_said(parts: &Parts) -> Role {
    match parts.extensions.get::<ServedByItself>() {
        Some(ServedByItself) => Role::Operator,
        None => Role::Reader,
    }
}

fn not_known() -> Refusal {
    Refusal::forbidden("You are not let in")
        .because("the service that this page is part of does not know you")
        .advising("Log in to the service first, then come back.")
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
    use axum::http::{Request, StatusCode, header};
    use base64::{Engine, prelude::BASE64_STANDARD};

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
            ("Bearer".to_owned(), None),
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
    fn logins_that_are_not_safe_are_refused_and_none_is_none() {
        assert_eq!(Access::basic([("ann", "short", Role::Reader)]).faults().len(), 1);
        assert_eq!(Access::bearer::<&str, &str>([]).all_faults(), [AccessFault::NoLogin]);
        let unsafe_token = [("monitor", "token", Role::Reader)];
        assert_eq!(Access::custom(|_| None).with_bearer(unsafe_token).faults().len(), 1);
        for access in [access(), Access::loopback(), Access::custom(|_| None)] {
            assert!(access.faults().is_empty(), "{access:?}");
        }
    }

    #[test]
    fn a_token_is_a_login_beside_each_other_way_to_get_in() {
        let tokens = [("monitor", "7d3f0c6b1f5e4b0f9a41", Role::Reader)];
        let custom = Access::custom(|parts| {
            let user = parts.headers.get("x-user")?.to_str().ok()?;
            Some(Grant::new(user, Role::Operator))
        });
        let (custom, local) =
            (custom.with_bearer(tokens.clone()), Access::loopback().with_bearer(tokens));
        let right = ("authorization", "Bearer 7d3f0c6b1f5e4b0f9a41");
        let wrong = ("authorization", "Bearer 7d3f0c6b1f5e4b0f9a42");
        let (empty, unreadable) = (("authorization", "Bearer"), ("authorization", "Basic %%%"));
        let (here, away) = ("127.0.0.1:5000", "10.0.0.7:5000");
        let user = ("x-user", "ann");
        for (access, peer, headers, expected) in [
            (&custom, away, vec![right], Ok("monitor")),
            (&custom, away, vec![user], Ok("ann")),
            // The service may have tokens of its own.
            (&custom, away, vec![user, wrong], Ok("ann")),
            (&custom, away, vec![user, unreadable], Ok("ann")),
            (&custom, away, vec![wrong], Err(StatusCode::UNAUTHORIZED)),
            (&custom, away, vec![unreadable], Err(StatusCode::UNAUTHORIZED)),
            (&custom, away, vec![], Err(StatusCode::FORBIDDEN)),
            (&local, away, vec![right], Ok("monitor")),
            (&local, here, vec![], Ok("loopback")),
            (&local, here, vec![wrong], Err(StatusCode::UNAUTHORIZED)),
            // A program whose token was not filled in does not act as somebody else.
            (&local, here, vec![empty], Err(StatusCode::UNAUTHORIZED)),
            (&local, here, vec![unreadable], Err(StatusCode::UNAUTHORIZED)),
            (&local, away, vec![], Err(StatusCode::UNAUTHORIZED)),
        ] {
            let mut request = Request::builder().header(header::HOST, "127.0.0.1:8080");
            for (name, value) in &headers {
                request = request.header(*name, *value);
            }
            let peer: SocketAddr = peer.parse().unwrap();
            let parts = request.extension(ConnectInfo(peer)).body(()).unwrap().into_parts().0;
            let seen = access.grant(&parts).map(|grant| grant.who);
            let seen = seen.map_err(|refusal| refusal.status());
            assert_eq!(seen, expected.map(str::to_owned), "{access:?} {peer} {headers:?}");
        }
        assert!(custom.has_login() && local.has_login() && !Access::loopback().has_login());
    }

    /// Asks from an address: `Err` has the status.
    fn asked(access: &Access, peer: &str, authorization: &str) -> Result<String, StatusCode> {
        let peer: SocketAddr = peer.parse().unwrap();
        let mut parts = parts(authorization);
        parts.extensions.insert(ConnectInfo(peer));
        access.grant(&parts).map(|grant| grant.who).map_err(|refusal| refusal.status())
    }

    fn basic(name: &str, password: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
    }

    const GUESSER: &str = "10.0.0.7:5000";

    #[tokio::test(start_paused = true)]
    async fn a_name_whose_logins_fail_waits_with_a_right_one_too_and_at_no_other_address() {
        let access = access();
        let (guess, right) = (basic("ann", "a guess"), basic("ann", "correct horse battery"));
        for number in 0..11 {
            let seen = asked(&access, GUESSER, &guess);
            assert_eq!(seen, Err(StatusCode::UNAUTHORIZED), "guess {number}");
        }
        for login in [&guess, &right] {
            for peer in [GUESSER, "10.0.0.7:5001"] {
                assert_eq!(asked(&access, peer, login), Err(StatusCode::TOO_MANY_REQUESTS));
            }
        }
        assert_eq!(asked(&access, "10.0.0.8:5000", &right), Ok("ann".to_owned()));
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!(asked(&access, GUESSER, &right), Ok("ann".to_owned()));
        // The right one has reset the count.
        for number in 0..11 {
            let seen = asked(&access, GUESSER, &guess);
            assert_eq!(seen, Err(StatusCode::UNAUTHORIZED), "guess {number} after a right one");
        }
        // A request without a login is none that has failed.
        let mut none = parts("");
        none.headers.clear();
        none.extensions.insert(ConnectInfo(GUESSER.parse::<SocketAddr>().unwrap()));
        assert_eq!(access.grant(&none).unwrap_err().status(), StatusCode::UNAUTHORIZED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_guesser_of_one_name_delays_neither_another_name_nor_a_token_of_the_same_address() {
        let access = access();
        for number in 0..100 {
            let _ = asked(&access, GUESSER, &basic("ann", &format!("guess {number}")));
            let _ = asked(&access, GUESSER, &format!("Bearer guess {number}"));
            let _ = asked(&access, GUESSER, &basic(&format!("name {number}"), "a guess"));
        }
        let ann = asked(&access, GUESSER, &basic("ann", "correct horse battery"));
        assert_eq!(ann, Err(StatusCode::TOO_MANY_REQUESTS));
        let bob = asked(&access, GUESSER, &basic("bob", "staple of the paper"));
        assert_eq!(bob, Ok("bob".to_owned()));
        let monitor = asked(&access, GUESSER, "Bearer 7d3f0c6b1f5e4b0f9a41");
        assert_eq!(monitor, Ok("monitor".to_owned()));
        let guess = asked(&access, GUESSER, "Bearer a guess");
        assert_eq!(guess, Err(StatusCode::UNAUTHORIZED));
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
