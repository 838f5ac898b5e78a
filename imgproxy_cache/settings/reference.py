"""What every variable means: the table behind `--help` and the README."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Setting:
    """
    One row of the table.

    `name` may be several that belong together, by commas, and so may `default`.
    It is the value that counts when the variable is not set, or says in words
    what happens then.
    """

    name: str
    default: str
    meaning: str


SETTINGS = (
    Setting(
        "S3_BUCKET",
        "required",
        "Bucket for processed images; `BUCKET_NAME` (as `fly storage create` sets it) is accepted. "
        "Not together with `CACHE_STORE_URL`.",
    ),
    Setting("S3_FOLDER", "", "Folder in the bucket; `processed` and `processed/` mean the same."),
    Setting(
        "S3_ENDPOINT",
        "https://fly.storage.tigris.dev",
        "S3 endpoint, addressed path-style; before the default come `AWS_ENDPOINT_URL_S3` and "
        "`AWS_ENDPOINT_URL`.",
    ),
    Setting("AWS_REGION", "auto", "Signing region."),
    Setting(
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
        "the standard chain",
        "Credentials for S3, from the environment, the shared file, a container or instance role, "
        "or a web identity. `AWS_CA_BUNDLE` is honoured.",
    ),
    Setting(
        "CACHE_STORE_URL",
        "",
        "The store as a URL instead of the `S3_*` names: `s3://bucket/folder`, "
        "`gs://bucket/folder`, `az://container/folder`, or `file:///folder` (one machine).",
    ),
    Setting(
        "IMGPROXY_BIND",
        ":8080",
        "Where we listen, IPv4 and IPv6; `PORT` is honoured when it is not set.",
    ),
    Setting(
        "IMGPROXY_*",
        "",
        "imgproxy's own settings, which go to it untouched. Those that change what may be stored "
        "are read here too.",
    ),
    Setting("HEALTH_CHECK_TIMEOUT_IN_SEC", "30", "How long start-up waits for imgproxy."),
    Setting(
        "CACHE_UPSTREAM_URL",
        "http://127.0.0.1:8081",
        "imgproxy. One that is not on loopback is not ours to start.",
    ),
    Setting(
        "CACHE_UPSTREAM_CONNECTIONS, CACHE_UPSTREAM_WAIT_SECONDS, CACHE_UPSTREAM_QUEUE_ITEMS",
        "100, 10, 1000",
        "Requests at imgproxy at once, for each worker; how long one waits for its turn, or for "
        "buffer space, before 503; how many may wait so.",
    ),
    Setting(
        "CACHE_UPSTREAM_CONNECT_TIMEOUT_SECONDS, CACHE_UPSTREAM_READ_TIMEOUT_SECONDS",
        "2, 60",
        "Connecting to imgproxy; waiting for its next bytes.",
    ),
    Setting(
        "CACHE_BUFFER_BYTES",
        "268435456",
        "Memory that images in flight may take, for each worker.",
    ),
    Setting(
        "CACHE_CLIENT_STALL_SECONDS",
        "60",
        "A client that takes fewer than 240 bytes a second for so long is cut off.",
    ),
    Setting(
        "CACHE_TRUSTED_PROXIES",
        "",
        "Addresses or networks, by commas, whose `X-Forwarded-*` are believed and extended; "
        "from all others they are replaced.",
    ),
    Setting("CACHE_MAX_OBJECT_BYTES", "52428800", "Larger images are passed on, not stored."),
    Setting(
        "CACHE_MIN_MAX_AGE_SECONDS",
        "3600",
        "Images with a shorter lifetime are not put in the bucket, which never forgets.",
    ),
    Setting(
        "CACHE_STORE_SVG, CACHE_STORE_SECRET",
        "false, false",
        "Store SVG images: a bucket serves them without the policy that keeps scripts from "
        "running. Store although `IMGPROXY_SECRET` is set: a public bucket does not ask for it.",
    ),
    Setting(
        "CACHE_UPLOAD_CONCURRENCY, CACHE_UPLOAD_QUEUE_ITEMS, CACHE_UPLOAD_QUEUE_BYTES",
        "8, 10000, 134217728",
        "Uploads at once, for each worker; images, and their bytes, that may wait for it in "
        "memory: beyond them they are answered and not stored.",
    ),
    Setting(
        "CACHE_SPOOL_DIR",
        "a temporary folder",
        "Where images wait that the store has not taken yet; one that is set is expected to be "
        "there after a restart: a volume.",
    ),
    Setting(
        "CACHE_SPOOL_SYNC",
        "true",
        "Have the disk confirm each image in the spool; `false` is cheaper, and a machine that "
        "loses its power then loses the images of the last half minute.",
    ),
    Setting(
        "CACHE_SPOOL_BYTES, CACHE_SPOOL_ITEMS, CACHE_SPOOL_MAX_AGE_SECONDS",
        "1073741824, 100000, 604800",
        "What the spool may take, all workers together (`0` items turn it off), and how long "
        "images wait in it before they are given up.",
    ),
    Setting(
        "CACHE_DRAIN_SECONDS",
        "4",
        "How long a stop may take for answers in flight and uploads (Fly kills after 5).",
    ),
    Setting(
        "CACHE_READ_THROUGH",
        "false",
        "Look in memory, on disk and in the store before asking imgproxy.",
    ),
    Setting(
        "CACHE_MEMORY_BYTES",
        "67108864",
        "What read-through may keep in memory, for each worker; `0`: nothing.",
    ),
    Setting(
        "CACHE_DISK_DIR",
        "",
        "Where it keeps images on disk: a folder of its own; not set: nowhere.",
    ),
    Setting("CACHE_DISK_BYTES", "10737418240", "What they may take, all workers together."),
    Setting(
        "CACHE_UNSIGNED",
        "false",
        "imgproxy has no keys and, unless `IMGPROXY_SECRET` is set, no secret. Read-through needs "
        "them, or this, where they may be hidden: with `IMGPROXY_ENV_*`, or an imgproxy elsewhere. "
        "With keys and no secret, set `IMGPROXY_SECRET` to nothing.",
    ),
    Setting(
        "CACHE_KEY_SIGNATURE",
        "include",
        "`exclude`: objects are named by the MD5 of the path without its signature, "
        "`/prefix/rest`, and outlive a change of keys.",
    ),
    Setting(
        "CACHE_STALE_WHILE_REVALIDATE_SECONDS, CACHE_STALE_IF_ERROR_SECONDS",
        "0, 86400",
        "For how long read-through gives an image whose lifetime is over: while it asks imgproxy "
        "again; while imgproxy fails. An answer may say otherwise of itself.",
    ),
    Setting("CACHE_NEGATIVE_SECONDS", "0", "For how long it keeps a 404 in memory; at most 60."),
    Setting(
        "CACHE_FILL_CONCURRENCY",
        "twice imgproxy's workers",
        "Images that it has imgproxy make at once, all workers together. imgproxy's workers are "
        "`IMGPROXY_WORKERS`, or two for each core; of one elsewhere, `CACHE_UPSTREAM_CONNECTIONS` "
        "counts.",
    ),
    Setting(
        "CACHE_STORE_MISS_SECONDS, CACHE_STORE_MISS_ITEMS",
        "30, 100000",
        "For how long, and for how many of them, it does not ask the store again for what was not "
        "there.",
    ),
    Setting(
        "CACHE_ADMIN_BIND",
        "127.0.0.1:8082",
        "The operator's port: `/ready` and `/metrics`; empty turns it off.",
    ),
    Setting(
        "CACHE_IMGPROXY_BIN",
        "found",
        "The imgproxy to start; else `imgproxy` on `PATH`, `/opt/imgproxy/bin/imgproxy`, or the "
        "embedded engine.",
    ),
    Setting(
        "CACHE_LOG_LEVEL, CACHE_LOG_FORMAT",
        "info, json",
        "`debug`, `info`, `warning` or `error`; `json`, or `console`, the default on a terminal.",
    ),
    Setting(
        "WEB_CONCURRENCY",
        "1",
        "Worker processes; limits and shared fetches are for each of them.",
    ),
)
"""In the order in which an operator meets them."""

NAMES = tuple(name for setting in SETTINGS for name in setting.name.split(", "))
