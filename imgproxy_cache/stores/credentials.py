"""AWS credentials and certificates, found where every AWS tool finds them."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aioboto3
import aiobotocore.session
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError

if TYPE_CHECKING:
    from obstore.store import S3Credential

# botocore renews credentials in the last 15 minutes of their life, and insists on it in the last
# 10.  obstore asks for new ones in the last 5 of what it was told.  So we tell it 6 minutes: it
# asks once a minute, and botocore decides.
ASK_AGAIN = timedelta(minutes=6)
# Credentials that live for less than botocore's 10 minutes: ask for every request (obstore still
# waits a tenth of a second in between).
ASK_ALWAYS = timedelta(seconds=1)
SHORT_LIFE_SECONDS = 600
# Looking for credentials that are not there may mean waiting for a metadata service every time.
SEARCH_PAUSE_SECONDS = 10


class AwsCredentials:
    """
    The standard chain (environment, shared files, SSO, web identity, container and instance
    roles) as obstore's credential provider; renewed before they expire.

    Calling it raises LookupError, with a text for the operator, while there are none.
    """

    def __init__(self) -> None:
        # What goes wrong here is raised and logged once as `upload.failed`; botocore would log
        # it a second time, with a traceback.
        logging.getLogger("botocore.credentials").setLevel(logging.CRITICAL)
        self._core = aiobotocore.session.get_session()
        self._found: Any = None
        self._problem = ""
        self._search_after = 0.0
        self._searching = asyncio.Lock()

    @property
    def ca_bundle(self) -> str | None:
        """Path of the certificates that ``AWS_CA_BUNDLE`` or the shared file names."""
        try:
            bundle: str | None = self._core.get_config_variable("ca_bundle")
        except BotoCoreError:
            return None
        return bundle

    async def __call__(self) -> S3Credential:
        async with self._searching:
            if self._found is None:
                await self._search()
        try:
            keys = await self._found.get_frozen_credentials()
        except Exception as exc:
            # A refresh runs whatever the chain names: HTTP, files, a program.
            raise LookupError(f"AWS credentials cannot be renewed: {exc}") from exc
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token or None,
            "expires_at": _ask_again_at(self._found, datetime.now(UTC)),
        }

    async def _search(self) -> None:
        if time.monotonic() < self._search_after:
            raise LookupError(self._problem)
        try:
            session = aioboto3.Session(botocore_session=self._core)
            self._found = await session.get_credentials()
            self._problem = "no AWS credentials were found"
        except Exception as exc:
            self._problem = f"AWS credentials cannot be read: {exc}"
        if self._found is None:
            self._search_after = time.monotonic() + SEARCH_PAUSE_SECONDS
            raise LookupError(self._problem)


def _ask_again_at(found: Any, now: datetime) -> datetime | None:
    if not isinstance(found, RefreshableCredentials):
        return None
    is_short = found.refresh_needed(SHORT_LIFE_SECONDS)
    return now + (ASK_ALWAYS if is_short else ASK_AGAIN)
