//! Uploads that were begun and never finished, which no list of objects shows. `object_store` has no request for them.

use http::Request;
use object_store::aws::AwsAuthorizer;
use object_store::client::HttpRequestBody;
use object_store::multipart::MultipartStore;
use object_store::path::Path as ObjectPath;
use serde::Deserialize;
use url::Url;

use super::answers::ObjectFault;
use super::{S3, failed};
use crate::error::StoreError;

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html>
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default)]
    upload: Vec<Unfinished>,
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: String,
    #[serde(default)]
    next_upload_id_marker: String,
}

#[derive(Debug, Deserialize)]
struct Unfinished {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "UploadId")]
    id: String,
}

impl S3 {
    /// Throws away what was uploaded below a folder and not finished, by whom ever. Servers that do not know the question have nothing to
    /// tell.
    pub(crate) async fn abort_unfinished(&self, folder: &ObjectPath) -> Result<(), StoreError> {
        let found = match self.unfinished(folder).await {
            Err(StoreError::Object { fault: ObjectFault::Unsupported, .. }) => return Ok(()),
            other => other?,
        };
        for upload in found {
            let Ok(object) = ObjectPath::parse(&upload.key) else { continue };
            match self.store.abort_multipart(&object, &upload.id).await {
                // Finished or aborted by somebody else in between.
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(failed("removing an unfinished upload below", folder, &e)),
            }
        }
        Ok(())
    }

    /// How many uploads below a folder are not finished.
    pub(crate) async fn count_unfinished(&self, folder: &ObjectPath) -> Result<usize, StoreError> {
        Ok(self.unfinished(folder).await?.len())
    }

    async fn unfinished(&self, folder: &ObjectPath) -> Result<Vec<Unfinished>, StoreError> {
        let prefix = format!("{}/", self.object(folder));
        let (mut key_marker, mut id_marker) = (String::new(), String::new());
        let mut found: Vec<Unfinished> = Vec::new();
        loop {
            let page = self
                .unfinished_page(&prefix, &key_marker, &id_marker)
                .await
                .map_err(|e| failed("looking for unfinished uploads below", folder, &e))?;
            found.extend(page.upload.into_iter().filter(|upload| upload.key.starts_with(&prefix)));
            if !page.is_truncated || (&page.next_key_marker, &page.next_upload_id_marker) == (&key_marker, &id_marker) {
                return Ok(found);
            }
            (key_marker, id_marker) = (page.next_key_marker, page.next_upload_id_marker);
        }
    }

    async fn unfinished_page(&self, prefix: &str, key_marker: &str, id_marker: &str) -> Result<Page, object_store::Error> {
        let foreign = || wrapped(ObjectFault::Foreign);
        let mut url = Url::parse(&self.bucket_url).map_err(|_| foreign())?;
        url.query_pairs_mut().append_pair("uploads", "").append_pair("prefix", prefix);
        if !key_marker.is_empty() {
            url.query_pairs_mut().append_pair("key-marker", key_marker).append_pair("upload-id-marker", id_marker);
        }
        let credential = self.store.credentials().get_credential().await?;
        let mut pause = std::time::Duration::from_millis(200);
        let begin = tokio::time::Instant::now();
        loop {
            let mut request = Request::get(url.as_str()).body(HttpRequestBody::empty()).map_err(|_| foreign())?;
            AwsAuthorizer::new(&credential, "s3", &self.region).authorize(&mut request, None);
            let answer = async { self.http.execute(request).await?.into_body().bytes().await };
            match answer.await {
                Ok(body) => return quick_xml::de::from_reader(body.as_ref()).map_err(|_| foreign()),
                Err(e) => {
                    let error = wrapped(e);
                    let again = matches!(
                        ObjectFault::of(&error),
                        ObjectFault::Throttled | ObjectFault::Unavailable | ObjectFault::Unreachable
                    );
                    if !again || begin.elapsed() >= super::RETRY_FOR {
                        return Err(error);
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(std::time::Duration::from_secs(3));
        }
    }
}

fn wrapped(error: impl std::error::Error + Send + Sync + 'static) -> object_store::Error {
    object_store::Error::Generic { store: "S3", source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_unfinished_uploads_is_read_with_none_one_or_more_in_it() {
        let page = |text: &str| quick_xml::de::from_str::<Page>(text).expect("parses");
        let empty =
            page("<ListMultipartUploadsResult><Bucket>b</Bucket><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>");
        assert!(empty.upload.is_empty() && !empty.is_truncated);
        let two = page(
            "<ListMultipartUploadsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><NextKeyMarker>b</NextKeyMarker>\
             <NextUploadIdMarker>9</NextUploadIdMarker><IsTruncated>true</IsTruncated>\
             <Upload><Key>a</Key><UploadId>8</UploadId><Initiated>x</Initiated></Upload>\
             <Upload><Key>b</Key><UploadId>9</UploadId></Upload></ListMultipartUploadsResult>",
        );
        assert_eq!(two.upload.iter().map(|u| (u.key.as_str(), u.id.as_str())).collect::<Vec<_>>(), [("a", "8"), ("b", "9")]);
        assert!(two.is_truncated && two.next_key_marker == "b" && two.next_upload_id_marker == "9");
    }
}
