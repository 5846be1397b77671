declare module 'virtual:embedded' {
  /** The files that are built into the service worker, by name. */
  const embedded: { 'boot.html': string; 'boot.css': string; 'boot.js': string; 'inject.js': string }
  export default embedded
}
