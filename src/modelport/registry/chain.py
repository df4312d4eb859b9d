"""Numbered create-only records, each holding the digest of the one before.

How much of a chain is checked:

- Whoever reads one record (`Chain.find`, `Chain.newest`: resolve, pull, serve) also reads its
  two neighbours: the predecessor must be the one it names, and the successor must name it.
  Three reads however long the chain is, and a changed record is never returned unless it is
  the newest of its chain or its neighbour was changed to match.
- Whoever adds to a chain or shows it (`Chain.records`: push, promote, rollback, history,
  verify) walks all of it.
- Whoever lists a chain sees a missing number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

from modelport.core.errors import IntegrityError, NotFoundError
from modelport.registry.layout import numbers_by_folder, place, record_key
from modelport.registry.records import AnyRecord, read_record
from modelport.stores.base import Store


@dataclass(frozen=True)
class Chain(Generic[AnyRecord]):
    """The records in one folder of a store.

    Parameters
    ----------
    store : Store
    folder : str
        Key prefix, ending in ``/``.
    kind : type
        Of all its records.
    """

    store: Store
    folder: str
    kind: type[AnyRecord]

    def length(self, numbers: set[int] | None = None) -> int:
        """How many records there are.

        Parameters
        ----------
        numbers : set of int, optional
            Those that a listing has shown, to save another one.

        Raises
        ------
        IntegrityError
            When one before the newest is missing: none is ever removed.
        """
        if numbers is None:
            numbers = numbers_by_folder(self.store, self.folder).get(self.folder, set())
        newest = max(numbers, default=0)
        for number in range(1, newest):
            # A listing may miss what is written while it runs; only asking is certain.
            if number not in numbers and not self.store.exists(self._key(number)):
                raise self._missing(number)
        return newest

    def find(self, number: int) -> AnyRecord | None:
        """The record with that number, checked against its neighbours; None if there is none.

        Raises
        ------
        IntegrityError
            When it or a neighbour is damaged, or they do not fit together.
        """
        record = self._get(number)
        if record is None:
            return None
        before = self._get(number - 1) if number > 1 else None
        self._check_link(before, record)
        after = self._get(number + 1)
        if after is not None:
            self._check_link(record, after)
        return record

    def newest(self, numbers: set[int] | None = None) -> AnyRecord | None:
        """The newest record, checked as by `length` and `find`; None if there is none."""
        length = self.length(numbers)
        return self.find(length) if length else None

    def records(self) -> list[AnyRecord]:
        """All records, oldest first, every link checked.

        Raises
        ------
        IntegrityError
            Naming the first record that is damaged, missing, or not the one that its
            successor follows.
        """
        records: list[AnyRecord] = []
        for _ in range(self.length()):
            self.extend(records)
        return records

    def extend(self, records: list[AnyRecord]) -> None:
        """Read the record that follows `records` and add it to them."""
        number = len(records) + 1
        record = self._get(number)
        if record is None:
            raise self._missing(number)
        self._check_link(records[-1] if records else None, record)
        records.append(record)

    def append(self, record: AnyRecord) -> bool:
        """Store a record; False when another writer was first with that number."""
        return self.store.put_if_absent(record.key, record.to_bytes())

    def _key(self, number: int) -> str:
        return record_key(self.folder, number)

    def _get(self, number: int) -> AnyRecord | None:
        key = self._key(number)
        try:
            data = self.store.get(key)
        except NotFoundError:
            return None
        where = place(self.store, key)
        record = read_record(data, self.kind, where=where)
        if record.key != key:
            raise IntegrityError(
                f"registry record belongs elsewhere: it is {record.key}", where=where
            )
        return record

    def _check_link(self, before: AnyRecord | None, record: AnyRecord) -> None:
        if before is None and record.number > 1:
            raise self._missing(record.number - 1)
        if record.previous == (before.digest if before is not None else ""):
            return
        if before is None:
            raise IntegrityError(
                "first registry record of its chain claims one before it",
                where=place(self.store, record.key),
            )
        raise IntegrityError(
            f"registry record was changed: it is not the one that {record.key} follows",
            where=place(self.store, before.key),
            hint="restore it from a backup of the store",
        )

    def _missing(self, number: int) -> IntegrityError:
        return IntegrityError(
            f"registry record is missing: {self._key(number)}",
            where=self.store.url,
            hint="records are never removed; restore it from a backup of the store",
        )
