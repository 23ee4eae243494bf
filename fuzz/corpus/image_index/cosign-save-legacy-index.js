{
   "schemaVersion": 2,
   "mediaType": "application/vnd.oci.image.index.v1+json",
   "manifests": [
      {
         "mediaType": "application/vnd.oci.image.manifest.v1+json",
         "size": 395,
         "digest": "sha256:2712eea3a059421c7df2fbb918c8f27bb5bcafdd52e2c41348dbe3b245204812",
         "annotations": {
            "kind": "dev.cosignproject.cosign/image"
         }
      },
      {
         "mediaType": "application/vnd.oci.image.manifest.v1+json",
         "size": 1117,
         "digest": "sha256:82cf9fd9a6774cf5e5eb0df62b0add6b692c874e0095da913dbbe886159f08e7",
         "annotations": {
            "kind": "dev.cosignproject.cosign/sigs"
         }
      },
      {
         "mediaType": "application/vnd.oci.image.manifest.v1+json",
         "size": 495,
         "digest": "sha256:58c7b748fc0fdc9c674bf0ade9e8547fc751c1f4d923278fe3fff57abfa0c4ba",
         "annotations": {
            "kind": "dev.cosignproject.cosign/atts"
         }
      }
   ]
}