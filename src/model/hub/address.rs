//! Addresses of the web, as far as a client of the Hub needs them: whose they are, and where a redirect leads.

use std::fmt;
use ureq::http::Uri;

/// A server: what one path of it may learn, the others may too.
#[derive(Clone, PartialEq, Debug)]
pub struct Origin {
    /// `http` or `https`.
    scheme: &'static str,
    /// In small letters; an IPv6 address in brackets.
    host: String,
    port: u16,
}

/// An absolute address of `http` or `https`, without user name and password.
#[derive(Clone, PartialEq, Debug)]
pub struct Address {
    /// The server.
    pub origin: Origin,
    /// Begins with a slash; with the query.
    path: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        match (self.scheme, self.port) {
            ("http", 80) | ("https", 443) => Ok(()),
            _ => write!(f, ":{}", self.port),
        }
    }
}

impl Address {
    /// The address, and the `name:password` in it if there is one. `None` if `text` is no absolute address of `http`
    /// or `https`.
    pub fn parse(text: &str) -> Option<(Self, Option<String>)> {
        let uri: Uri = text.parse().ok()?;
        let (scheme, usual) = match uri.scheme_str()?.to_ascii_lowercase().as_str() {
            "http" => ("http", 80),
            "https" => ("https", 443),
            _ => return None,
        };
        let authority = uri.authority()?.as_str();
        let (credentials, place) = match authority.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials.to_string()), place),
            None => (None, authority),
        };
        let host = uri.host().filter(|host| !host.is_empty())?;
        let port = match place.strip_prefix(host)? {
            "" | ":" => usual,
            port => port.strip_prefix(':')?.parse().ok()?,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
        Some((
            Address { origin: Origin { scheme, host: host.to_ascii_lowercase(), port }, path },
            credentials,
        ))
    }

    /// Where a redirect from here to `location` leads; `None` if that is no address. Any user name and password in it
    /// are left out: a server has no business choosing them.
    pub fn redirect(&self, location: &str) -> Option<Self> {
        let location = location.trim().split('#').next().unwrap_or_default();
        let scheme_ends = location.find("://").filter(|at| !location[..*at].contains(['/', '?']));
        if scheme_ends.is_some() {
            return Some(Self::parse(location)?.0);
        }
        if location.starts_with("//") {
            return Some(Self::parse(&format!("{}:{location}", self.origin.scheme))?.0);
        }
        let (own, _) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let path = match location.chars().next() {
            None => self.path.clone(),
            Some('/') => location.to_string(),
            Some('?') => format!("{own}{location}"),
            Some(_) => format!("{}/{location}", own.rsplit_once('/').map_or("", |(folder, _)| folder)),
        };
        Some(Self::parse(&format!("{}{path}", self.origin))?.0)
    }

    /// A file or folder below this one.
    pub fn join(&self, path: &str) -> Self {
        Address { origin: self.origin.clone(), path: format!("{}/{path}", self.path.trim_end_matches('/')) }
    }

    /// Whether there is something after a question mark.
    pub fn has_query(&self) -> bool {
        self.path.contains('?')
    }

    /// The address as a request takes it, with the user name and password that belong to its server. Holds secrets:
    /// paths of signed downloads are some too.
    pub fn request(&self, credentials: Option<&str>) -> String {
        let Origin { scheme, host, port } = &self.origin;
        let credentials = credentials.map_or(String::new(), |credentials| format!("{credentials}@"));
        format!("{scheme}://{credentials}{host}:{port}{}", self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Address {
        Address::parse(text).expect(text).0
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let own = parse("https://Hub.example/a").origin;
        for same in ["https://hub.example:443", "HTTPS://HUB.EXAMPLE/?b", "https://x:y@hub.example:/b"] {
            assert_eq!(parse(same).origin, own, "{same}");
        }
        for other in [
            "http://hub.example/a",
            "http://hub.example:443/a",
            "https://hub.example:8443/a",
            "https://hub.example.evil/a",
            "https://hub.example@evil/a",
            "https://hub.example:443@evil:443/a",
            "https://hub.example./a",
            "https://[::1]/a",
        ] {
            assert_ne!(parse(other).origin, own, "{other}");
        }
        assert_eq!(parse("http://[::1]:80/a").origin, parse("http://[::1]").origin);
        for wrong in [
            "",
            "a",
            "/a",
            "host:80",
            "ftp://a/b",
            "file:///a",
            "http://",
            "http://a:99999/",
            "http://a b/",
            "http:/a",
        ] {
            assert!(Address::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_kept_apart() {
        let (address, credentials) = Address::parse("http://me:pass@host:81/a?key=secret").unwrap();
        assert_eq!(credentials.as_deref(), Some("me:pass"));
        assert_eq!(address.origin.to_string(), "http://host:81");
        assert_eq!(address.request(None), "http://host:81/a?key=secret");
        assert_eq!(address.request(Some("me:pass")), "http://me:pass@host:81/a?key=secret");
    }

    #[test]
    fn redirects_lead_where_a_browser_goes() {
        let from = parse("http://host:81/a/b?c");
        for (location, to) in [
            ("https://other/d#e", "https://other:443/d"),
            ("http://you:pass@host:81/d", "http://host:81/d"),
            ("//other/d", "http://other:80/d"),
            ("/d?e", "http://host:81/d?e"),
            ("d?to=http://other/", "http://host:81/a/d?to=http://other/"),
            ("/d?to=http://other/", "http://host:81/d?to=http://other/"),
            ("?d", "http://host:81/a/b?d"),
            ("", "http://host:81/a/b?c"),
            (" /d ", "http://host:81/d"),
        ] {
            assert_eq!(from.redirect(location).expect(location).request(None), to, "{location}");
        }
        for wrong in ["ftp://host/a", "http://", "/a b", "//", "http://host:x/"] {
            assert!(from.redirect(wrong).is_none(), "{wrong}");
        }
    }
}
