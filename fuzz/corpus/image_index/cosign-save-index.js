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
      }
   ]
}