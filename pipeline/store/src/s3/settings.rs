//! Where the bucket is, and who asks.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use object_store::aws::AmazonS3ConfigKey;
use object_store::path::Path as ObjectPath;
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::error::StoreError;

/// `s3://bucket/prefix`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Address {
    /// The bucket.
    pub bucket: String,
    /// What all objects' names begin with; may be empty.
    pub prefix: ObjectPath,
}

impl S3Address {
    /// # Errors
    /// [`StoreError::ObjectStoreSetting`], which does not repeat the address: somebody may have put a password into it.
    pub fn parse(address: &str) -> Result<Self, StoreError> {
        let wrong =
            StoreError::ObjectStoreSetting("`files.url` must be `s3://BUCKET` or `s3://BUCKET/FOLDER`, with plain characters");
        let Some(rest) = address.strip_prefix("s3://") else { return Err(wrong) };
        if rest.contains(['@', '?', '#']) {
            return Err(StoreError::ObjectStoreSetting(
                "`files.url` holds more than bucket and folder; credentials belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
                 into `files.credentials_file`",
            ));
        }
        let (bucket, folder) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
        let folder = folder.trim_end_matches('/');
        match ObjectPath::parse(folder) {
            Ok(prefix) if (3..=63).contains(&bucket.len()) && bucket.chars().all(plain) && prefix.as_ref() == folder => {
                Ok(Self { bucket: bucket.to_owned(), prefix })
            }
            _ => Err(wrong),
        }
    }
}

/// Where the credentials come from.
#[derive(Clone)]
pub enum S3Credentials {
    /// The usual variables: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, perhaps `AWS_SESSION_TOKEN`; or those of a container's or web
    /// identity's role. On AWS itself, without any of them, the machine's own role.
    Environment,
    /// The `[default]` section of a file like `~/.aws/credentials`, which nobody but its owner may read.
    File(PathBuf),
    /// These.
    Keys {
        /// Access key id.
        access_key: String,
        /// Secret access key.
        secret_key: Zeroizing<String>,
    },
}

/// Never shows a key.
impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("Environment"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Keys { .. } => f.write_str("Keys(not shown)"),
        }
    }
}

/// Everything that [`crate::Files::open_s3`] needs.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// Bucket and prefix.
    pub address: S3Address,
    /// `https://host:port` of the server; empty: AWS.
    pub endpoint: String,
    /// Region; empty: `AWS_REGION`, `AWS_DEFAULT_REGION`, or us-east-1.
    pub region: String,
    /// Whether an endpoint off this machine may be spoken to without TLS.
    pub allow_http: bool,
    /// Who asks.
    pub credentials: S3Credentials,
}

/// Settings with all defaults in their places.
pub(super) struct Place {
    pub(super) endpoint: String,
    pub(super) region: String,
    pub(super) plain_http: bool,
    pub(super) credentials: Vec<(AmazonS3ConfigKey, Zeroizing<String>)>,
}

/// Variables that say who asks. Others, such as those for endpoints or for switching conditional writes off, are not heard: what is done
/// with the data stands in the settings alone.
const CREDENTIAL_VARIABLES: &[(&str, AmazonS3ConfigKey)] = &[
    ("AWS_ACCESS_KEY_ID", AmazonS3ConfigKey::AccessKeyId),
    ("AWS_SECRET_ACCESS_KEY", AmazonS3ConfigKey::SecretAccessKey),
    ("AWS_SESSION_TOKEN", AmazonS3ConfigKey::Token),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
];

impl S3Settings {
    /// Whether the settings can be used, without looking for credentials.
    ///
    /// # Errors
    /// [`StoreError::ObjectStoreSetting`].
    pub fn check(&self) -> Result<(), StoreError> {
        self.endpoint("us-east-1").map(drop)
    }

    /// Fills in defaults and credentials.
    pub(super) fn resolve(&self) -> Result<Place, StoreError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        self.resolve_with(&variable)
    }

    fn resolve_with(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Place, StoreError> {
        let region = Some(self.region.clone()).filter(|r| !r.is_empty());
        let region = region.or_else(|| variable("AWS_REGION")).or_else(|| variable("AWS_DEFAULT_REGION"));
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        if !region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(StoreError::ObjectStoreSetting("`files.region` must be a name such as eu-central-1"));
        }
        let (endpoint, plain_http) = self.endpoint(&region)?;
        let credentials = match &self.credentials {
            S3Credentials::Environment => self.environment_credentials(variable)?,
            S3Credentials::File(path) => from_file(path)?,
            S3Credentials::Keys { access_key, secret_key } => vec![
                (AmazonS3ConfigKey::AccessKeyId, Zeroizing::new(access_key.clone())),
                (AmazonS3ConfigKey::SecretAccessKey, secret_key.clone()),
            ],
        };
        Ok(Place { endpoint, region, plain_http, credentials })
    }

    /// The endpoint, and whether it is spoken to without TLS.
    fn endpoint(&self, region: &str) -> Result<(String, bool), StoreError> {
        if self.endpoint.is_empty() {
            return Ok((format!("https://s3.{region}.amazonaws.com"), false));
        }
        let wrong =
            StoreError::ObjectStoreSetting("`files.endpoint` must be `https://HOST` or `https://HOST:PORT`, and nothing more");
        let Ok(url) = Url::parse(&self.endpoint) else { return Err(wrong) };
        let bare = url.username().is_empty() && url.password().is_none() && url.path() == "/" && url.query().is_none();
        let loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
            None => return Err(wrong),
        };
        match url.scheme() {
            _ if !bare || url.fragment().is_some() => Err(wrong),
            "https" => Ok((self.endpoint.trim_end_matches('/').to_owned(), false)),
            "http" if loopback || self.allow_http => Ok((self.endpoint.trim_end_matches('/').to_owned(), true)),
            "http" => Err(StoreError::ObjectStoreSetting(
                "`files.endpoint` is without TLS and off this machine: use https, or set `files.allow_http` if the network is trusted",
            )),
            _ => Err(wrong),
        }
    }

    fn environment_credentials(
        &self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Vec<(AmazonS3ConfigKey, Zeroizing<String>)>, StoreError> {
        let found = CREDENTIAL_VARIABLES.iter().filter_map(|(name, key)| Some((*key, Zeroizing::new(variable(name)?))));
        let found: Vec<_> = found.collect();
        let has = |key| found.iter().any(|(k, _)| *k == key);
        if has(AmazonS3ConfigKey::AccessKeyId) != has(AmazonS3ConfigKey::SecretAccessKey) {
            return Err(StoreError::ObjectStoreSetting(
                "of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY only one is set: set both",
            ));
        }
        // Another server has no machine roles: asking for one would end in a puzzling timeout.
        if found.is_empty() && !self.endpoint.is_empty() {
            return Err(StoreError::ObjectStoreSetting(
                "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file in `files.credentials_file`",
            ));
        }
        Ok(found)
    }
}

fn from_file(path: &std::path::Path) -> Result<Vec<(AmazonS3ConfigKey, Zeroizing<String>)>, StoreError> {
    use std::os::unix::fs::PermissionsExt;
    let unreadable = |_| StoreError::ObjectStoreSetting("the file that `files.credentials_file` names cannot be read");
    let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(StoreError::ObjectStoreSetting(
            "the file that `files.credentials_file` names can be read by others: run `chmod 600` on it",
        ));
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(unreadable)?);
    from_text(&text).ok_or(StoreError::ObjectStoreSetting(
        "the file that `files.credentials_file` names must hold `aws_access_key_id = …` and `aws_secret_access_key = …`, below \
         `[default]` or without sections",
    ))
}

/// The keys of the `[default]` section, or of a file without sections.
fn from_text(text: &str) -> Option<Vec<(AmazonS3ConfigKey, Zeroizing<String>)>> {
    let mut found = Vec::new();
    let mut ours = true;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
        if line.starts_with('[') {
            ours = line == "[default]";
        } else if ours {
            let (name, value) = line.split_once('=')?;
            let key = match name.trim() {
                "aws_access_key_id" => AmazonS3ConfigKey::AccessKeyId,
                "aws_secret_access_key" => AmazonS3ConfigKey::SecretAccessKey,
                "aws_session_token" => AmazonS3ConfigKey::Token,
                _ => continue,
            };
            found.push((key, Zeroizing::new(value.trim().to_owned())));
        }
    }
    let has = |key| found.iter().any(|(k, v)| *k == key && !v.is_empty());
    (has(AmazonS3ConfigKey::AccessKeyId) && has(AmazonS3ConfigKey::SecretAccessKey)).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoint: &str) -> S3Settings {
        S3Settings {
            address: S3Address::parse("s3://flock/prod").expect("parses"),
            endpoint: endpoint.to_owned(),
            region: String::new(),
            allow_http: false,
            credentials: S3Credentials::Keys { access_key: "AK".to_owned(), secret_key: Zeroizing::new("hunter2".to_owned()) },
        }
    }

    fn refusal<T>(result: Result<T, StoreError>) -> String {
        result.err().expect("refused").to_string()
    }

    #[test]
    fn an_address_is_a_bucket_and_perhaps_a_folder() {
        for (address, prefix) in [("s3://flock", ""), ("s3://flock/", ""), ("s3://flock/a/b", "a/b"), ("s3://flock/a/", "a")] {
            let parsed = S3Address::parse(address).expect(address);
            assert_eq!((parsed.bucket.as_str(), parsed.prefix.as_ref()), ("flock", prefix), "{address}");
        }
        for address in ["", "flock", "https://flock", "s3://", "s3://a", "s3://Flock", "s3://flock/../x", "s3://flock//x"] {
            assert!(S3Address::parse(address).is_err(), "{address}");
        }
    }

    #[test]
    fn i4_credentials_in_an_address_are_refused_and_not_repeated() {
        let told = refusal(S3Address::parse("s3://AKIA:hunter2@flock/x"));
        assert!(!told.contains("hunter2") && told.contains("credentials_file"), "{told}");
        let told = refusal(settings("https://AKIA:hunter2@host").resolve());
        assert!(!told.contains("hunter2") && told.contains("files.endpoint"), "{told}");
        assert!(!format!("{:?}", settings("")).contains("hunter2"));
    }

    #[test]
    fn plain_http_is_for_this_machine_or_for_who_asks_for_it() {
        let plain = |endpoint: &str, allow_http| {
            S3Settings { allow_http, ..settings(endpoint) }.resolve().map(|place| (place.endpoint, place.plain_http))
        };
        for endpoint in ["http://127.0.0.1:7070", "http://localhost:7070/", "http://[::1]:7070"] {
            assert!(plain(endpoint, false).expect(endpoint).1);
        }
        assert!(refusal(plain("http://store.example:9000", false)).contains("allow_http"));
        assert!(plain("http://store.example:9000", true).expect("allowed").1);
        assert!(!plain("https://store.example", false).expect("TLS").1);
        assert_eq!(plain("", false).expect("AWS").0, "https://s3.us-east-1.amazonaws.com");
        for endpoint in ["store.example", "ftp://store.example", "https://store.example/path", "https://store.example?x=1"] {
            assert!(plain(endpoint, true).is_err(), "{endpoint}");
        }
    }

    #[test]
    fn the_environment_gives_credentials_and_a_region_but_no_endpoint_and_no_switches() {
        let environment = S3Settings { credentials: S3Credentials::Environment, ..settings("") };
        let variable = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" | "AWS_CONDITIONAL_PUT" => Some("x".to_owned()),
            "AWS_ENDPOINT_URL" => Some("http://elsewhere".to_owned()),
            "AWS_REGION" => Some("eu-west-3".to_owned()),
            _ => None,
        };
        let place = environment.resolve_with(&variable).expect("resolves");
        assert_eq!(place.endpoint, "https://s3.eu-west-3.amazonaws.com");
        let keys: Vec<_> = place.credentials.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [AmazonS3ConfigKey::AccessKeyId, AmazonS3ConfigKey::SecretAccessKey]);
    }

    #[test]
    fn missing_credentials_are_told_at_once() {
        let environment = S3Settings { credentials: S3Credentials::Environment, ..settings("http://127.0.0.1:1") };
        assert!(refusal(environment.resolve_with(&|_| None)).contains("AWS_ACCESS_KEY_ID"));
        let half = |name: &str| (name == "AWS_ACCESS_KEY_ID").then(|| "x".to_owned());
        assert!(refusal(environment.resolve_with(&half)).contains("only one"));
    }

    #[test]
    fn a_credentials_file_must_be_private_and_complete() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("credentials");
        let with_file = S3Settings { credentials: S3Credentials::File(path.clone()), ..settings("") };
        assert!(refusal(with_file.resolve()).contains("cannot be read"));
        let text = "# ours\n[other]\naws_access_key_id=no\n[default]\naws_access_key_id = AK\naws_secret_access_key = hunter2\nregion = x\n";
        std::fs::write(&path, text).expect("writes");
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
        mode(0o644);
        assert!(refusal(with_file.resolve()).contains("chmod 600"));
        mode(0o600);
        let place = with_file.resolve().expect("resolves");
        assert_eq!(place.credentials.iter().map(|(_, v)| v.as_str()).collect::<Vec<_>>(), ["AK", "hunter2"]);
        std::fs::write(&path, "aws_access_key_id = AK\n").expect("writes");
        let told = refusal(with_file.resolve());
        assert!(told.contains("aws_secret_access_key") && !told.contains("AK\n"), "{told}");
    }
}
