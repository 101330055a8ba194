"""Copies of a store, and what is done to one file of a copy."""

import hashlib
import os
import shutil

TAIL = 64 * 1024


def paths_of(directory):
    """The regular files of a directory, by their paths in it."""
    found = []
    for where, _, names in os.walk(directory):
        paths = [os.path.join(where, name) for name in names]
        found += [os.path.relpath(path, directory) for path in paths if os.path.isfile(path)]
    return sorted(found)


def is_never_written(path):
    """Whether a file stays as it is for as long as it has its name, so that a link is as good as a copy."""
    return path == "ballast" or path.startswith("blobs/") and "." not in path


def copy_store(source, to):
    for where, _, _ in os.walk(source):
        at = os.path.join(to, os.path.relpath(where, source))
        os.makedirs(at, exist_ok=True)
        os.chmod(at, 0o700)
    for path in paths_of(source):
        put = os.link if is_never_written(path) else shutil.copy2
        put(os.path.join(source, path), os.path.join(to, path))


def files_of(directory):
    """What all files hold, as a hash by path."""
    found = {}
    for path in paths_of(directory):
        with open(os.path.join(directory, path), "rb") as file:
            found[path] = hashlib.file_digest(file, "sha256").digest()
    return found


def end_of_data(content):
    """Where the last byte that is not zero ends: the index file is made longer than what is in it."""
    return len(content.rstrip(b"\0"))


def own(path):
    """Makes a file that is linked to another store's a copy."""
    if os.stat(path).st_nlink > 1:
        shutil.copy2(path, path + ".own")
        os.rename(path + ".own", path)


class Hit:
    """One file of a store with one bit flipped, or cut off."""

    def __init__(self, directory, pick, chance):
        choose, at_end = pick
        files = [path for path in paths_of(directory) if os.path.getsize(os.path.join(directory, path))]
        self.file = choose(files)
        self.path = os.path.join(directory, self.file)
        with open(self.path, "rb") as file:
            self.before = file.read()
        end = max(1, end_of_data(self.before)) if self.file.endswith("/db") else len(self.before)
        at = chance.randrange(max(0, end - TAIL) if at_end else 0, end)
        own(self.path)
        if chance.random() < 0.5:
            self.words = f"a bit flipped at {at} of {len(self.before)} in {self.file}"
            with open(self.path, "r+b") as file:
                file.seek(at)
                file.write(bytes([self.before[at] ^ 1 << chance.randrange(8)]))
        else:
            self.words = f"{self.file} cut off at {at} of {len(self.before)}"
            os.truncate(self.path, at)

    def undo(self):
        with open(self.path, "wb") as file:
            file.write(self.before)

    @property
    def name(self):
        """What has to stand in the words of `doctor` for it."""
        if self.file.startswith("blobs/"):
            # Half a value has the id of its record behind its hash.
            return self.file.split("-")[0]
        return {"store/witness": "witness", "key": "key file"}.get(self.file, "index")
