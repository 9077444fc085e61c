//! An authority whose client certificates the doors take, one whose they do not, and certificates of both.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::house::House;
use crate::support::succeed;

pub(crate) struct Authority {
    folder: tempfile::TempDir,
}

/// A certificate and its key.
pub(crate) struct Shown {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new(house: &House) -> Self {
        let folder = tempfile::tempdir_in(house.dir.path()).expect("dir");
        for name in ["authority", "stranger"] {
            let mut command = request(folder.path(), name, &format!("/CN={name}"));
            command.args(["-x509", "-days", "2", "-addext", "basicConstraints=critical,CA:TRUE", "-out"]);
            succeed(command.arg(folder.path().join(format!("{name}.pem"))));
        }
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The settings of doors that take its certificates, which have this one themselves; `wanted`: "optional" or "required".
    pub(crate) fn settings(&self, house: &House, doors: &[&str], wanted: &str) -> String {
        let (certificate, key) = house.certificate();
        let mut text = String::new();
        for door in doors {
            text.push_str(&format!("[{door}]\ntls_cert_file = {certificate:?}\ntls_key_file = {key:?}\n"));
            if *door != "serve" {
                text.push_str("listen = \"127.0.0.1:0\"\n");
            }
        }
        let authority = self.path("authority.pem");
        format!("{text}[tls]\nclient_ca_file = {authority:?}\nclient_certificates = {wanted:?}\n")
    }

    /// A certificate with these names, such as `URI:spiffe://flock.example/ada`, good for so many days, for this use.
    pub(crate) fn certificate(&self, name: &str, names: &str, days: &str, purpose: &str) -> Shown {
        self.signed("authority", name, names, days, purpose)
    }

    pub(crate) fn signed(&self, by: &str, name: &str, names: &str, days: &str, purpose: &str) -> Shown {
        let [asked, certificate, key] = ["csr", "pem", "key"].map(|end| self.path(&format!("{name}.{end}")));
        let mut command = request(self.folder.path(), name, &format!("/CN={name}"));
        command.args(["-addext", "basicConstraints=critical,CA:FALSE", "-addext", &format!("extendedKeyUsage={purpose}")]);
        if !names.is_empty() {
            command.args(["-addext", &format!("subjectAltName={names}")]);
        }
        succeed(command.arg("-out").arg(&asked));
        let mut command = Command::new("openssl");
        command.args(["x509", "-req", "-copy_extensions", "copy", "-days", days, "-in"]).arg(&asked).arg("-CA");
        command.arg(self.path(&format!("{by}.pem"))).arg("-CAkey").arg(self.path(&format!("{by}.key")));
        succeed(command.arg("-out").arg(&certificate));
        Shown { certificate, key }
    }
}

/// A command that makes a key for a name, and asks for a certificate of it.
fn request(folder: &Path, name: &str, subject: &str) -> Command {
    let mut command = Command::new("openssl");
    command.args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", subject, "-keyout"]);
    // openssl gives it to its owner only, which libpq insists on.
    command.arg(folder.join(format!("{name}.key")));
    command
}
