/** Stores the cookie jar in the IndexedDB of the app's origin. */
import type { JarStore } from '../cookies'

const STORE = 'jar'
const KEY = 'cookies'

function result<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error ?? new Error('IndexedDB request failed'))
  })
}

async function objectStore(mode: IDBTransactionMode): Promise<IDBObjectStore> {
  const opening = indexedDB.open('__vc', 1)
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE)
  const database = await result(opening)
  return database.transaction(STORE, mode).objectStore(STORE)
}

/** The store of this origin. It lives as long as the site's data. */
export const jarStore: JarStore = {
  async load() {
    return result<unknown>((await objectStore('readonly')).get(KEY))
  },
  async save(jar) {
    await result((await objectStore('readwrite')).put(jar, KEY))
  },
}
