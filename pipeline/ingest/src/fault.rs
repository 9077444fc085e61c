//! Why brokers do not let this client in, in words that say what to do.
//!
//! librdkafka tells of a failed connection with a code and a text. The code is too coarse: an authentication that the network cut short has
//! the same one as a wrong password. So the text is read, and a [`Fault`] is only what the other side has *answered*: it refused the
//! password, its certificate does not verify, a rule denies the topic. Such an answer stops a job, because asking again gets it again. A
//! connection that ended, or never came about, is no answer: it may be a broker that restarts, and the job waits for it.

use std::sync::{Mutex, PoisonError};

use rdkafka::error::RDKafkaErrorCode;

/// Why this client is not served, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// SASL said no.
    #[error(
        "the user or the password is refused: check `sasl.username` and `sasl.password`, and that the user exists for this \
         `sasl.mechanism` (SCRAM users are made for each mechanism)"
    )]
    Credentials,
    /// SASL of another kind.
    #[error("the brokers do not offer this `sasl.mechanism`; they offer: {offered}")]
    Mechanism {
        /// What the broker named.
        offered: String,
    },
    /// The broker's certificate does not verify, for one of the two reasons below.
    #[error(
        "the broker's certificate does not verify: its authority is not known here (`ssl.ca.location`), or it was made for another host \
         name than the one in `kafka.brokers` or the broker's `advertised.listeners`. `starling doctor` says which"
    )]
    Certificate,
    /// No trusted authority signed the broker's certificate.
    #[error(
        "the broker's certificate was signed by no authority that is known here, or it has expired: set `ssl.ca.location` to the PEM file of \
         the authority that signed it. Without that setting the authorities of this system are used, such as those of the package \
         ca-certificates"
    )]
    Authority,
    /// The broker's certificate names other hosts.
    #[error(
        "the broker's certificate was made for another host name: write the brokers in `kafka.brokers` as the certificate does, and have \
         them do so in their `advertised.listeners`"
    )]
    HostName,
    /// The broker wants a certificate of this client, or another one.
    #[error(
        "the broker does not accept this client's certificate, or misses one: set `ssl.certificate.location` and `ssl.key.location` to a \
         certificate and key signed by an authority that the broker knows"
    )]
    ClientCertificate,
    /// Somebody listens who does not answer.
    #[error(
        "what listens there does not answer to `security.protocol = \"{spoken}\"`: check which of PLAINTEXT, SSL, SASL_PLAINTEXT and \
         SASL_SSL that port speaks"
    )]
    Protocol {
        /// What this client speaks.
        spoken: String,
    },
    /// Nobody listens.
    #[error("no broker can be reached there: check `kafka.brokers`, the network, and that the brokers are up")]
    Unreachable,
    /// A rule denies a topic.
    #[error(
        "the access rules do not let this user use the topic: it needs Read on the topic of events, Read and Write on that of signals, Write \
         on that of alerts (`kafka-acls --add --allow-principal User:NAME --operation Read --topic TOPIC`)"
    )]
    Topic,
    /// A rule denies the group.
    #[error(
        "the access rules do not let this user join the consumer group: it needs Read on it (`kafka-acls --add --allow-principal User:NAME \
         --operation Read --group GROUP`)"
    )]
    Group,
    /// A rule denies something else.
    #[error("the access rules do not let this user do that on the cluster")]
    Cluster,
}

impl Fault {
    /// What a text of librdkafka's says for certain. Its wording is that of librdkafka 2.12 and OpenSSL 3; a text that is not known is not
    /// certain, so that after a change of words a job waits where it could have stopped.
    pub(crate) fn told(reason: &str) -> Option<Self> {
        // A request that was not answered ends with these words too.
        const UNANSWERED: [&str; 3] = ["SaslAuthenticateRequest failed", "parsing failed", "mechanism handshake failed: Local:"];
        const CLIENT_CERTIFICATE: [&str; 6] = [
            "alert bad certificate",
            "alert certificate required",
            "alert certificate unknown",
            "alert certificate expired",
            "alert certificate revoked",
            "alert unknown ca",
        ];
        if UNANSWERED.iter().any(|text| reason.contains(text)) {
            None
        } else if let Some((_, rest)) = reason.split_once("mechanism handshake failed: ") {
            let offered = rest.split_once("supported mechanisms: ")?.1;
            let offered = offered.split_whitespace().next().unwrap_or_default();
            Some(Self::Mechanism { offered: offered.to_owned() })
        } else if reason.contains("SASL authentication error: ") {
            Some(Self::Credentials)
        } else if reason.contains("certificate verify failed") {
            Some(Self::Certificate)
        } else if CLIENT_CERTIFICATE.iter().any(|alert| reason.contains(alert)) {
            Some(Self::ClientCertificate)
        } else {
            None
        }
    }

    /// What a code says for certain.
    pub(crate) fn denied(code: RDKafkaErrorCode) -> Option<Self> {
        match code {
            RDKafkaErrorCode::TopicAuthorizationFailed => Some(Self::Topic),
            RDKafkaErrorCode::GroupAuthorizationFailed => Some(Self::Group),
            RDKafkaErrorCode::ClusterAuthorizationFailed | RDKafkaErrorCode::TransactionalIdAuthorizationFailed => {
                Some(Self::Cluster)
            }
            _ => None,
        }
    }
}

/// The last fault that a client's connections told of.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Option<Fault>>);

impl Faults {
    /// Notes what a text of librdkafka's says.
    pub(crate) fn observe(&self, reason: &str) {
        if let Some(fault) = Fault::told(reason) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        }
    }

    /// The last one, if there was one.
    pub(crate) fn last(&self) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets it: the brokers have answered as they should.
    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts as librdkafka 2.12.1 gave them to a real broker's answers.
    #[test]
    fn an_answer_is_told_from_a_connection_that_ended() {
        let answers = [
            (
                "sasl_ssl://h:1/bootstrap: SASL authentication error: Authentication failed during authentication due to invalid \
                 credentials with SASL mechanism SCRAM-SHA-512 (after 401ms in state AUTH_REQ)",
                Some(Fault::Credentials),
            ),
            (
                "sasl_ssl://h:1/bootstrap: SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's \
                 supported mechanisms: SCRAM-SHA-512,SCRAM-SHA-256 (after 330ms in state AUTH_HANDSHAKE)",
                Some(Fault::Mechanism { offered: "SCRAM-SHA-512,SCRAM-SHA-256".into() }),
            ),
            (
                "sasl_ssl://h:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker \
                 certificate could not be verified, verify that ssl.ca.location is correctly configured (after 22ms in state SSL_HANDSHAKE)",
                Some(Fault::Certificate),
            ),
            (
                "ssl://h:1/bootstrap: Receive failed: error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert number 42 \
                 (after 1ms in state APIVERSION_QUERY)",
                Some(Fault::ClientCertificate),
            ),
            // A broker that went away in the middle of each of these.
            (
                "sasl_ssl://h:1/1: SASL SCRAM-SHA-512 mechanism handshake failed: Local: Broker transport failure: broker's supported \
                 mechanisms: (n/a) (after 12ms in state AUTH_HANDSHAKE)",
                None,
            ),
            (
                "sasl_ssl://h:1/1: SASL authentication error: SaslAuthenticateRequest failed: Local: Broker transport failure",
                None,
            ),
            (
                "sasl_ssl://h:1/1: SSL handshake failed: Disconnected: connection reset by peer: connecting to a PLAINTEXT broker \
                 listener? (after 1ms in state SSL_HANDSHAKE)",
                None,
            ),
            ("sasl_ssl://h:1/1: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)", None),
            ("1/1 brokers are down", None),
        ];
        for (reason, fault) in answers {
            assert_eq!(Fault::told(reason), fault, "{reason}");
        }
    }

    #[test]
    fn every_fault_says_which_setting_or_rule_to_look_at() {
        let faults = [
            (Fault::Credentials, "sasl.password"),
            (Fault::Mechanism { offered: "PLAIN".into() }, "sasl.mechanism"),
            (Fault::Certificate, "ssl.ca.location"),
            (Fault::Authority, "ssl.ca.location"),
            (Fault::HostName, "kafka.brokers"),
            (Fault::ClientCertificate, "ssl.key.location"),
            (Fault::Protocol { spoken: "SSL".into() }, "security.protocol"),
            (Fault::Unreachable, "kafka.brokers"),
            (Fault::Topic, "--topic"),
            (Fault::Group, "--group"),
            (Fault::Cluster, "access rules"),
        ];
        for (fault, names) in faults {
            assert!(fault.to_string().contains(names), "{fault}");
        }
    }
}
