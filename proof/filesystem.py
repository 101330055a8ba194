"""A file system as POSIX promises it, which is less than ext4 and xfs do: what is certain after a power cut, and what not.

What a file held, and how long it was, is certain once an fsync or fdatasync of it has returned that began when the write
had ended; a name in a directory is once an fsync of that directory has, likewise. Everything else is on the disk or is
not, each for itself and in any order: every block of every write, every change of a length, every name that came or
went. A rename is one change, and so is a write within one block. Of several writes to one block the last that is kept
counts, so any of them may have been the last that the disk saw.

ext4 (data=ordered) and xfs write names in the order of their changes, and with them the names of files that are synced;
nothing here relies on that.
"""

import os
import re
import stat

ROOT_MODE, FILE_MODE = 0o700, 0o600


class Unknown(Exception):
    """A call that this model does not know, though it may change files."""


class Content:
    """Bytes of a file; what was written behind its end shows when the end moves there."""

    def __init__(self, data=b"", size=0):
        self.data, self.size = bytearray(data), size

    def copy(self):
        return Content(self.data, self.size)

    def write(self, at, data):
        if len(self.data) < at:
            self.data.extend(bytes(at - len(self.data)))
        self.data[at : at + len(data)] = data

    def read(self, at, length):
        whole = bytes(self.data[at : min(at + length, self.size)])
        return whole + bytes(max(0, min(length, self.size - at) - len(whole)))

    def store(self, path):
        """Writes it to a real file; long runs of zeros become holes."""
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
            data = self.data[: self.size]
            for at in range(0, len(data), 65536):
                part = data[at : at + 65536]
                if any(part):
                    file.seek(at)
                    file.write(part)
            file.truncate(self.size)


class Node:
    """A file or directory: as programs see it, and as the disk certainly has it."""

    def __init__(self, is_directory):
        self.is_directory = is_directory
        self.now, self.sure = ({}, {}) if is_directory else (Content(), Content())


class Change:
    """Something that a sync of any node in `of` makes certain. `call` is what did it."""

    def __init__(self, call, of):
        self.call, self.of = call, of

    def parts(self, block):
        """The changes that this is made of, each of which may reach the disk alone."""
        return [self]


class Write(Change):
    def __init__(self, call, node, at, data):
        super().__init__(call, (node,))
        self.node, self.at, self.data = node, at, data

    def apply(self, of):
        of(self.node).write(self.at, self.data)

    def done(self, real, system):
        there = _read(real, system.path_of(self.node))[self.at : self.at + len(self.data)]
        return Write(self.call, self.node, self.at, there) if self.data.startswith(there) else self._begun(there)

    def _begun(self, there):
        """A write that stopped on its way."""
        alike = next(at for at, byte in enumerate(there) if byte != self.data[at])
        return Write(self.call, self.node, self.at, self.data[:alike])

    def parts(self, block):
        parts, at, end = [], self.at, self.at + len(self.data)
        while at < end:
            to = min(end, (at // block + 1) * block)
            parts.append(Write(self.call, self.node, at, self.data[at - self.at : to - self.at]))
            at = to
        return parts


class Length(Change):
    """`grows`: it only ever makes the file longer."""

    def __init__(self, call, node, size, grows):
        super().__init__(call, (node,))
        self.node, self.size, self.grows = node, size, grows

    def apply(self, of):
        content = of(self.node)
        if self.grows:
            content.size = max(content.size, self.size)
        else:
            del content.data[self.size :]
            content.size = self.size

    def done(self, real, system):
        size = len(_read(real, system.path_of(self.node)))
        if self.grows and self.node.now.size < size < self.size:
            return Length(self.call, self.node, size, grows=True)
        return self if size == self.size else None


class Name(Change):
    """A name that came, went, or became another one; what was there is None where there was nothing."""

    def __init__(self, call, node, gone=None, come=None):
        super().__init__(call, tuple({place[0] for place in (gone, come) if place}))
        self.node, self.gone, self.come = node, gone, come

    def apply(self, of):
        if self.gone and of(self.gone[0]).get(self.gone[1]) is self.node:
            del of(self.gone[0])[self.gone[1]]
        if self.come:
            of(self.come[0])[self.come[1]] = self.node

    def done(self, real, system):
        directory, name = self.gone or self.come
        is_there = os.path.lexists(os.path.join(real, system.path_of(directory), name))
        return self if is_there != bool(self.gone) else None


def _read(real, path):
    try:
        with open(os.path.join(real, path), "rb") as file:
            return file.read()
    except (OSError, TypeError):
        return b""


class Description:
    """An open file."""

    def __init__(self, node, appends=False):
        self.node, self.offset, self.appends = node, 0, appends


def _now(node):
    return node.now


def _sure(node):
    return node.sure


class FileSystem:
    """Follows calls, in the order of a trace, as far as they are about what lies in the directory `root`.

    `ignored` says of which nodes, by their paths, a sync does nothing.
    """

    def __init__(self, root, ignored=lambda path: False):
        self.root, self.top, self.ignored = os.path.normpath(root), Node(True), ignored
        self.open, self.pending, self.begun = {}, [], {}

    def adopt(self, real):
        """Takes over a directory that is as the disk certainly has it."""
        self._adopt(self.top, real)

    def _adopt(self, directory, real):
        for entry in os.scandir(real):
            node = Node(entry.is_dir())
            if node.is_directory:
                self._adopt(node, entry.path)
            else:
                with open(entry.path, "rb") as file:
                    data = file.read()
                node.now, node.sure = Content(data, len(data)), Content(data, len(data))
            directory.now[entry.name] = directory.sure[entry.name] = node

    def restart(self):
        """The process has ended; the machine has not."""
        self.open = {}

    def begin(self, call):
        """The first line of a call. A number that it closes may be another file's before its last line comes."""
        if call.name == "close":
            self.open.pop(call.number(0), None)

    def end(self, call):
        """The last line of a call."""
        if call.name in ("fsync", "fdatasync") and call.succeeded:
            self.sync(call)
        elif call.succeeded:
            for change in self.changes(call):
                change.apply(_now)
                self.pending.append(change)
            self.follow(call)

    def sync(self, call):
        node = self.node(call.number(0))
        if node is None or self.ignored(self.path_of(node)):
            return
        left = []
        for change in self.pending:
            if node in change.of and change.call.end < call.start:
                change.apply(_sure)
            else:
                left.append(change)
        self.pending = left

    def node(self, number):
        opened = self.open.get(number)
        return opened.node if isinstance(opened, Description) else None

    def path_of(self, node):
        """The path within the root, or None where it has none."""
        return next((path for path, found in self.walk() if found is node), None)

    def walk(self, directory=None, path=""):
        yield path, directory or self.top
        for name, node in (directory or self.top).now.items():
            if node.is_directory:
                yield from self.walk(node, os.path.join(path, name))
            else:
                yield os.path.join(path, name), node

    def settle(self, calls, real):
        """Calls that a kill cut short were done, or not, or in part; the directory as the kill left it tells."""
        for call in calls:
            for change in self.changes(call):
                done = change.done(real, self)
                if done:
                    done.apply(_now)
                    self.pending.append(done)

    def differences(self, real):
        """Where a real directory is not what this model believes it to be."""
        found = {path: node for path, node in self.walk() if path}
        seen = set()
        for where, directories, files in os.walk(real):
            for name in directories + files:
                path = os.path.join(where, name)
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    continue
                inner = os.path.relpath(path, real)
                seen.add(inner)
                node = found.get(inner)
                if node is None:
                    yield f"{inner} is there"
                elif not node.is_directory:
                    with open(path, "rb") as file:
                        data = file.read()
                    if data != node.now.read(0, node.now.size):
                        yield f"{inner} holds something else"
        yield from (f"{path} is not there" for path in set(found) - seen)

    # What calls change.

    def changes(self, call):
        """What a call changes, if it does what it was asked to."""
        known = getattr(self, "_" + call.name, None)
        if not known:
            return []
        if call.result is not None:
            return known(call)
        try:
            return known(call)
        except (IndexError, ValueError):
            # A kill came before strace had read its arguments, so it had not begun.
            return []

    def follow(self, call):
        """What a call says about descriptors and places in files."""
        if call.name in ("openat", "open", "creat"):
            self.opened(call)
        elif call.name in ("dup", "dup2", "dup3") or (call.name == "fcntl" and "F_DUPFD" in call.argument(1)):
            self.open[call.result] = self.open.get(call.number(0))
        elif call.name in ("read", "write", "writev"):
            opened = self.described(call.number(0))
            if opened:
                opened.offset += call.result
        elif call.name == "lseek":
            opened = self.described(call.number(0))
            if opened:
                opened.offset = call.result
        elif call.name == "copy_file_range":
            for number in (0, 2):
                if call.argument(number + 1) == "NULL" and self.described(call.number(number)):
                    self.described(call.number(number)).offset += call.result

    def described(self, number):
        opened = self.open.get(number)
        return opened if isinstance(opened, Description) else None

    def opened(self, call):
        at, path, flags = self.place(call, 0, 1), call.path(1), call.argument(2)
        node = self.top if os.path.normpath(path) == self.root else self.find(at)
        if node is None:
            self.open.pop(call.result, None)
        else:
            self.open[call.result] = Description(node, "O_APPEND" in flags)

    def place(self, call, directory, path):
        """The directory and the name that a path means; None for what is elsewhere."""
        path = call.path(path)
        if os.path.isabs(path):
            path = os.path.normpath(path)
            if not path.startswith(self.root + "/"):
                return None
            node, parts = self.top, path[len(self.root) + 1 :].split("/")
        else:
            node, parts = self.node_at(call, directory), os.path.normpath(path).split("/")
        for part in parts[:-1]:
            node = node.now.get(part) if node else None
        return (node, parts[-1]) if node else None

    def node_at(self, call, directory):
        if directory is None or call.argument(directory) == "AT_FDCWD":
            return None
        return self.node(call.number(directory))

    def find(self, place):
        return place[0].now.get(place[1]) if place else None

    def _openat(self, call):
        place, flags = self.place(call, 0, 1), call.argument(2)
        node = self.find(place)
        if place and node is None and "O_CREAT" in flags:
            return [Name(call, Node(False), come=place)]
        if node and "O_TRUNC" in flags and node.now.size:
            return [Length(call, node, 0, grows=False)]
        return []

    def _write(self, call, at=None):
        opened = self.described(call.number(0))
        if not opened:
            return []
        data = call.bytes(1)
        data = data if call.result is None else data[: call.result]
        if at is None:
            at = opened.node.now.size if opened.appends else opened.offset
        return self.written(call, opened.node, at, data)

    def _pwrite64(self, call):
        return self._write(call, call.number(3))

    _writev = _write

    def written(self, call, node, at, data):
        changes = [Write(call, node, at, data)] if data else []
        if at + len(data) > node.now.size:
            changes.append(Length(call, node, at + len(data), grows=True))
        return changes

    def _copy_file_range(self, call):
        source, target = self.described(call.number(0)), self.described(call.number(2))
        if not target or call.result is None:
            return []
        if call.argument(1) != "NULL" or call.argument(3) != "NULL" or not source:
            raise Unknown(call)
        return self.written(call, target.node, target.offset, source.node.now.read(source.offset, call.result))

    def _sendfile(self, call):
        target = self.described(call.number(0))
        if target:
            raise Unknown(call)
        return []

    _splice = _sendfile

    def _ftruncate(self, call):
        node = self.node(call.number(0))
        return [Length(call, node, call.number(1), grows=False)] if node else []

    def _fallocate(self, call):
        node = self.node(call.number(0))
        if node and call.argument(1) != "0":
            raise Unknown(call)
        return [Length(call, node, call.number(2) + call.number(3), grows=True)] if node else []

    def _mkdir(self, call, directory=None, path=0):
        place = self.place(call, directory, path)
        # One that is there already is refused, which a call that has not ended does not say yet.
        return [Name(call, Node(True), come=place)] if place and not self.find(place) else []

    def _mkdirat(self, call):
        return self._mkdir(call, 0, 1)

    def _unlink(self, call, directory=None, path=0):
        place = self.place(call, directory, path)
        node = self.find(place)
        # What is not known is a socket.
        return [Name(call, node, gone=place)] if node else []

    def _unlinkat(self, call):
        return self._unlink(call, 0, 1)

    _rmdir = _unlink

    def _rename(self, call, from_directory=None, path=0, to_directory=None, to=1):
        gone, come = self.place(call, from_directory, path), self.place(call, to_directory, to)
        node = self.find(gone)
        return [Name(call, node, gone, come)] if node else []

    def _renameat(self, call):
        return self._rename(call, 0, 1, 2, 3)

    _renameat2 = _renameat

    def _refuse(self, call):
        raise Unknown(call)

    _open = _creat = _pwritev = _pwritev2 = _truncate = _link = _linkat = _symlink = _symlinkat = _refuse
    _io_uring_setup = _refuse

    def _mmap(self, call):
        shared = re.search(r"PROT_WRITE", call.argument(2)) and re.search(r"MAP_SHARED", call.argument(3))
        if shared and self.node(int(call.argument(4), 0)):
            raise Unknown(call)
        return []

    # What a power cut may leave.

    def uncertain(self, under_way, block):
        """All that may have reached the disk or not, in order, also of calls that have not ended."""
        changes = [*self.pending]
        for call in under_way:
            if call.name != "close":
                changes += self.changes(call)
        return [part for change in changes for part in change.parts(block)]

    def leave(self, kept, path):
        """Makes a directory of what is certain and of those changes."""
        overlay = {}

        def of(node):
            if node not in overlay:
                overlay[node] = node.sure.copy()
            return overlay[node]

        for change in kept:
            change.apply(of)
        self._store(self.top, of, path)

    def _store(self, directory, of, path):
        os.mkdir(path, ROOT_MODE)
        for name, node in of(directory).items():
            if node.is_directory:
                self._store(node, of, os.path.join(path, name))
            else:
                of(node).store(os.path.join(path, name))
