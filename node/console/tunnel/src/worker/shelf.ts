/** The jar's place in the app's origin: it lives as long as the site's data do. */
import type { Shelf } from '../cookies'

const STORE = 'jar'
const KEY = 'cookies'

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error ?? new Error('the database refuses'))
  })
}

async function store(mode: IDBTransactionMode): Promise<IDBObjectStore> {
  const opening = indexedDB.open('__vc', 1)
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE)
  const database = await done(opening)
  return database.transaction(STORE, mode).objectStore(STORE)
}

export const shelf: Shelf = {
  async load() {
    return done<unknown>((await store('readonly')).get(KEY))
  },
  async save(jar) {
    await done((await store('readwrite')).put(jar, KEY))
  },
}
