"""Direct transfer with an S3 server: addresses that clients send parts to, and the proof that what came is right.

Nothing but content with the right hash ever has the name of a blob. That is known in one of two ways:

- The server refuses a single put whose SHA-256 is not the signed one (found out at the start by sending it a wrong one). Then
  content is put under its own name at once: what lies there has that SHA-256, whenever and however often it was put.
- Otherwise parts go to `<prefix>uploads/<upload>/<sha256>`, a name under which nobody reads. When they are complete the object
  is read and hashed here, and only then gets its own name, by a copy inside the server. The addresses of parts are dead once it
  is complete, so nobody can exchange it between the reading and the copy.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from modelyard_artifact.blobs.s3_calls import found, guarded, read_object, unfinished
from modelyard_artifact.errors import BlobLost, DigestMismatch, UploadIncomplete
from modelyard_artifact.models import BlobUrls, PartUrl, SignedUrl
from modelyard_kit.faults import failpoint
from modelyard_kit.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from modelyard_artifact.models import Blob
    from modelyard_kit.clock import Clock

SINGLE_PUT_BYTES = 1 << 30
"""Up to here one put is used where the server checks it; S3 allows 5 GiB, but a cut put begins again."""
_COPY_BYTES = 5 << 30
_COPY_PART_BYTES = 1 << 30
_MAX_PARTS = 10_000
_HASH_BYTES = 8 << 20


class DirectTransfers:
    """Addresses and proofs for one bucket.

    Args:
        s3: client of the bucket.
        signer: client whose endpoint is the address at which users reach the bucket.
        bucket: its name.
        prefix: put before every key.
        part_bytes: size of a part; grows by itself for blobs of more than 10,000 parts.
        expiry: how long an address works.
        clock: the time.
        final_key: key of a blob by its hash.
    """

    def __init__(
        self,
        s3: Any,
        signer: Any,
        bucket: str,
        prefix: str,
        *,
        part_bytes: int,
        expiry: timedelta,
        clock: Clock,
        final_key: Callable[[str], str],
    ) -> None:
        self._s3 = s3
        self._signer = signer
        self._bucket = bucket
        self._prefix = f"{prefix}uploads/"
        self._part_bytes = part_bytes
        self._expiry = expiry
        self._clock = clock
        self._final_key = final_key
        self.checks_puts = False

    async def probe(self) -> None:
        """Finds out whether the server refuses a put with a wrong SHA-256."""
        where = {"Bucket": self._bucket, "Key": f"{self._prefix}probe-{new_id()}"}
        try:
            await guarded(self._s3.put_object(**where, Body=b"probe", ChecksumSHA256=_base64("0" * 64)))
        except ClientError:
            right = hashlib.sha256(b"probe").hexdigest()
            # It must be the checksum that it did not like, and it must tell afterwards which one it keeps.
            try:
                await guarded(self._s3.put_object(**where, Body=b"probe", ChecksumSHA256=_base64(right)))
                self.checks_puts = await self._kept_checksum(where["Key"]) == _base64(right)
            except ClientError:
                self.checks_puts = False
        await guarded(self._s3.delete_object(**where))

    async def sign_upload(self, owner: str, blob: Blob) -> BlobUrls:
        """Addresses of the parts that the server does not have yet."""
        expire_time = self._clock() + self._expiry
        parts: list[PartUrl] = []
        if blob.size and await self._staged_size(owner, blob) != blob.size:
            if self._in_one(blob):
                parts = [PartUrl(1, 0, blob.size, await self._sign_put(owner, blob))]
            else:
                upload_id = await self._multipart(owner, blob) or await self._begin(owner, blob)
                there = await self._parts(owner, blob, upload_id)
                parts = [
                    PartUrl(
                        number, offset, length, await self._sign_part(owner, blob, upload_id, number, length)
                    )
                    for number, offset, length in self._split(blob)
                    if there.get(number, ("", -1))[1] != length
                ]
        return BlobUrls(blob, tuple(parts), expire_time)

    async def sign_download(self, blob: Blob) -> tuple[SignedUrl, datetime]:
        """Address to read a blob at, and when it stops working."""
        expire_time = self._clock() + self._expiry
        where = {"Bucket": self._bucket, "Key": self._final_key(blob.sha256)}
        return await self._sign("get_object", "GET", where, {}), expire_time

    async def finish(self, owner: str, blob: Blob) -> None:
        """Proves what was sent and gives it its name.

        Raises:
            UploadIncomplete: parts are missing.
            DigestMismatch: not the announced bytes; they were thrown away.
        """
        key = self._key(owner, blob)
        if blob.size == 0:
            await guarded(self._s3.put_object(Bucket=self._bucket, Key=key, Body=b""))
        elif await self._staged_size(owner, blob) is None:
            await self._complete(owner, blob)
        await failpoint("artifact.direct.after_complete")
        await self._prove(owner, blob)
        if self._in_one(blob):
            return
        await failpoint("artifact.direct.before_copy")
        await self._copy(owner, blob)
        await failpoint("artifact.direct.after_copy")
        await guarded(self._s3.delete_object(Bucket=self._bucket, Key=key))

    async def discard(self, owner: str) -> None:
        """Removes everything that was sent for an upload but has no name of a blob; the collector finds that."""
        prefix = f"{self._prefix}{owner}/"
        for each in await unfinished(self._s3, self._bucket, prefix):
            where = {"Bucket": self._bucket, "Key": each["Key"], "UploadId": each["UploadId"]}
            await found(self._s3.abort_multipart_upload(**where))
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        async for page in pages:
            for item in page.get("Contents", ()):
                await guarded(self._s3.delete_object(Bucket=self._bucket, Key=item["Key"]))

    async def owners(self) -> set[str]:
        """The uploads for which something was sent."""
        owners = set()
        listing = self._s3.get_paginator("list_objects_v2")
        async for page in listing.paginate(Bucket=self._bucket, Prefix=self._prefix):
            owners |= {self._owner(item["Key"]) for item in page.get("Contents", ())}
        uploads = await unfinished(self._s3, self._bucket, self._prefix)
        return owners | {self._owner(each["Key"]) for each in uploads}

    def _in_one(self, blob: Blob) -> bool:
        return self.checks_puts and blob.size <= SINGLE_PUT_BYTES

    def _key(self, owner: str, blob: Blob) -> str:
        """Where a blob is sent to."""
        return self._final_key(blob.sha256) if self._in_one(blob) else f"{self._prefix}{owner}/{blob.sha256}"

    def _owner(self, key: str) -> str:
        return key.removeprefix(self._prefix).partition("/")[0]

    def _split(self, blob: Blob) -> Iterator[tuple[int, int, int]]:
        size = max(self._part_bytes, -(-blob.size // _MAX_PARTS))
        for number, offset in enumerate(range(0, blob.size, size), start=1):
            yield number, offset, min(size, blob.size - offset)

    async def _begin(self, owner: str, blob: Blob) -> str:
        begun = self._s3.create_multipart_upload(Bucket=self._bucket, Key=self._key(owner, blob))
        return str((await guarded(begun))["UploadId"])

    async def _multipart(self, owner: str, blob: Blob) -> str | None:
        key = self._key(owner, blob)
        uploads = await unfinished(self._s3, self._bucket, key)
        # The smallest of several, so that two calls at once agree in the end.
        return min((str(each["UploadId"]) for each in uploads if each["Key"] == key), default=None)

    async def _parts(self, owner: str, blob: Blob, upload_id: str) -> dict[int, tuple[str, int]]:
        """Number -> (ETag, size in bytes) of the parts that the server has."""
        pages = self._s3.get_paginator("list_parts").paginate(
            Bucket=self._bucket, Key=self._key(owner, blob), UploadId=upload_id
        )
        return {
            int(part["PartNumber"]): (str(part["ETag"]), int(part["Size"]))
            async for page in pages
            for part in page.get("Parts", ())
        }

    async def _complete(self, owner: str, blob: Blob) -> None:
        upload_id = await self._multipart(owner, blob)
        if upload_id is None:
            raise UploadIncomplete(owner, missing=1)
        there = await self._parts(owner, blob, upload_id)
        if any(there.get(number, ("", -1))[1] != length for number, _, length in self._split(blob)):
            raise UploadIncomplete(owner, missing=1)
        parts = [{"PartNumber": number, "ETag": there[number][0]} for number, _, _ in self._split(blob)]
        await guarded(
            self._s3.complete_multipart_upload(
                Bucket=self._bucket,
                Key=self._key(owner, blob),
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
            )
        )

    async def _prove(self, owner: str, blob: Blob) -> None:
        key = self._key(owner, blob)
        size = await self._staged_size(owner, blob)
        if size is None:  # another call finished it just now
            raise UploadIncomplete(owner, missing=1)
        actual = f"{size} bytes"
        if size == blob.size:
            if self._in_one(blob) and await self._kept_checksum(key) == _base64(blob.sha256):
                return
            actual = await self._hash(owner, blob)
            if actual == blob.sha256:
                return
        await guarded(self._s3.delete_object(Bucket=self._bucket, Key=key))
        raise DigestMismatch(expected=blob.sha256, actual=actual)

    async def _hash(self, owner: str, blob: Blob) -> str:
        key = self._key(owner, blob)
        digest, pieces, size = hashlib.sha256(), [], 0
        try:
            async for piece in read_object(self._s3, self._bucket, key, blob, 0, blob.size):
                pieces.append(piece)
                size += len(piece)
                if size >= _HASH_BYTES:
                    await asyncio.to_thread(digest.update, b"".join(pieces))
                    pieces, size = [], 0
        except BlobLost as error:  # somebody finished it just now, or threw it away
            raise UploadIncomplete(owner, missing=1) from error
        await asyncio.to_thread(digest.update, b"".join(pieces))
        return digest.hexdigest()

    async def _copy(self, owner: str, blob: Blob) -> None:
        final = {"Bucket": self._bucket, "Key": self._final_key(blob.sha256)}
        origin = {"Bucket": self._bucket, "Key": self._key(owner, blob)}
        whole = blob.size <= _COPY_BYTES or not await self._copy_parts(origin, final, blob)
        if whole and await found(self._s3.copy_object(**final, CopySource=origin)) is None:
            raise UploadIncomplete(owner, missing=1)
        head = await found(self._s3.head_object(**final))
        if head is None or int(head["ContentLength"]) != blob.size:
            raise BlobLost(blob.sha256, "did not become whole when the object store copied it")

    async def _copy_parts(self, origin: Mapping[str, str], final: Mapping[str, str], blob: Blob) -> bool:
        """Copies more than S3 copies in one piece; False where the server cannot, which then has no such bound."""
        upload_id = (await guarded(self._s3.create_multipart_upload(**final)))["UploadId"]
        parts = []
        try:
            for number, start in enumerate(range(0, blob.size, _COPY_PART_BYTES), start=1):
                span = f"bytes={start}-{min(start + _COPY_PART_BYTES, blob.size) - 1}"
                part = {
                    "UploadId": upload_id,
                    "PartNumber": number,
                    "CopySource": origin,
                    "CopySourceRange": span,
                }
                answer = await guarded(self._s3.upload_part_copy(**final, **part))
                if "ETag" not in answer.get("CopyPartResult", {}):  # taken for an ordinary, empty part
                    await guarded(self._s3.abort_multipart_upload(**final, UploadId=upload_id))
                    return False
                parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
            complete = {"UploadId": upload_id, "MultipartUpload": {"Parts": parts}}
            await guarded(self._s3.complete_multipart_upload(**final, **complete))
        except BaseException:
            await asyncio.shield(found(self._s3.abort_multipart_upload(**final, UploadId=upload_id)))
            raise
        return True

    async def _staged_size(self, owner: str, blob: Blob) -> int | None:
        head = await found(self._s3.head_object(Bucket=self._bucket, Key=self._key(owner, blob)))
        return None if head is None else int(head["ContentLength"])

    async def _kept_checksum(self, key: str) -> str | None:
        head = await found(self._s3.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED"))
        return None if head is None else head.get("ChecksumSHA256")

    async def _sign_put(self, owner: str, blob: Blob) -> SignedUrl:
        checksum = _base64(blob.sha256)
        where: dict[str, Any] = {"Bucket": self._bucket, "Key": self._key(owner, blob)}
        where |= {"ChecksumSHA256": checksum, "ContentLength": blob.size}
        return await self._sign("put_object", "PUT", where, {"x-amz-checksum-sha256": checksum})

    async def _sign_part(self, owner: str, blob: Blob, upload_id: str, number: int, length: int) -> SignedUrl:
        where: dict[str, Any] = {"Bucket": self._bucket, "Key": self._key(owner, blob), "UploadId": upload_id}
        where |= {"PartNumber": number, "ContentLength": length}
        return await self._sign("upload_part", "PUT", where, {})

    async def _sign(
        self, call: str, method: str, parameters: Mapping[str, Any], headers: Mapping[str, str]
    ) -> SignedUrl:
        seconds = int(self._expiry.total_seconds())
        url = await self._signer.generate_presigned_url(call, Params=dict(parameters), ExpiresIn=seconds)
        return SignedUrl(url, method, dict(headers))


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()
