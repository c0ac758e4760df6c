//! URLs that name several hosts: `scheme://[user:password@]host[:port],host[:port]…[/path]`.

use redis::{ConnectionInfo, IntoConnectionInfo};

use crate::error::RedisError;
use crate::place::wrong;

/// The hosts of a URL, each with its user and password, and the path after them.
pub(crate) struct Hosts<'a> {
    pub(crate) all: Vec<ConnectionInfo>,
    pub(crate) path: &'a str,
}

impl<'a> Hosts<'a> {
    /// Reads them; a host that names no port has this one.
    pub(crate) fn read(url: &'a str, port: u16) -> Result<Self, RedisError> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let scheme = scheme.split('+').next().unwrap_or_default();
        if rest.contains(['?', '#']) {
            return Err(no("takes no query"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority
            .rsplit_once('@')
            .map_or(("", authority), |(_, hosts)| (authority.strip_suffix(hosts).unwrap_or_default(), hosts));
        let read = |host: &str| {
            if host.is_empty() {
                return Err(no("names an empty host"));
            }
            // The colons of an IPv6 address are inside brackets.
            let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
            let port = if has_port { String::new() } else { format!(":{port}") };
            format!("{scheme}://{user}{host}{port}").into_connection_info().map_err(wrong)
        };
        Ok(Self { all: hosts.split(',').map(read).collect::<Result<_, _>>()?, path })
    }

    /// Whether TLS is asked for.
    #[cfg(feature = "sentinel")]
    pub(crate) fn secure(&self) -> bool {
        self.all.iter().any(|host| matches!(host.addr(), redis::ConnectionAddr::TcpTls { .. }))
    }
}

pub(crate) fn no(message: &str) -> RedisError {
    RedisError::Config { key: "url", message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::ConnectionAddr;

    #[test]
    fn every_host_has_its_port_and_everybodys_password() {
        let hosts = Hosts::read("redis+x://me:p%40ss@a,b:7,[::1],[::1]:9/main/2", 26_379).unwrap();
        let seen = hosts.all.iter().map(|host| match host.addr() {
            ConnectionAddr::Tcp(name, port) => (name.as_str(), *port),
            other => panic!("{other:?}"),
        });
        assert_eq!(seen.collect::<Vec<_>>(), [("a", 26_379), ("b", 7), ("::1", 26_379), ("::1", 9)]);
        for host in &hosts.all {
            assert_eq!(
                (host.redis_settings().username(), host.redis_settings().password()),
                (Some("me"), Some("p@ss"))
            );
        }
        assert_eq!(hosts.path, "main/2");
    }

    #[test]
    fn what_cannot_be_read_is_refused_without_the_password() {
        for url in
            ["redis+x://", "redis+x://:hunter2@a,,b", "redis+x://:hunter2@a:x", "redis+x://:hunter2@a?x=1"]
        {
            let error = Hosts::read(url, 1).map(drop).unwrap_err().to_string();
            assert!(error.contains("redis.url") && !error.contains("hunter2"), "{error}");
        }
    }
}
